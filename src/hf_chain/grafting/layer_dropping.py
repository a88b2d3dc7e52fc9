"""A model without some of its layers: a stock model of its own class, of which only kept weights are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from hf_chain.grafting.anatomy import num_layers
from hf_chain.grafting.layer_config import surrogate_config, surrogate_names, target_name
from hf_chain.grafting.lineage import SurrogateLineage, write_lineage
from hf_chain.grafting.ranges import LayerRange, check_ranges, kept_layers, translator_layers
from hf_chain.grafting.shards import load_whole
from hf_chain.grafting.target import Target

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def drop_layers(
    target: Target, replaced: Sequence[LayerRange], translators: int = 1, dtype: str | torch.dtype | None = None
) -> PreTrainedModel:
    """The target without the layers of the ranges, but for the first `translators` of each.

    Args:
        target (`Target`): the model, in a checkpoint or in memory.
        replaced (`Sequence[LayerRange]`): the ranges.
        translators (`int`): layers of each range that stay.
        dtype (`str` or `torch.dtype`, *optional*): type of the weights; the target's by default.

    Returns:
        `PreTrainedModel`: on the CPU, in evaluation mode, with its lineage in its configuration.

    Raises:
        HfChainError: when the ranges do not fit the target, or it cannot be read.
    """
    layers = num_layers(target.config)
    ranges = check_ranges(replaced, layers, translators)
    kept = kept_layers(ranges, layers, translators)
    surrogate = _load(target, {layer: number for number, layer in enumerate(kept)}, dtype)
    lineage = SurrogateLineage(
        target=target.name,
        revision=target.revision,
        target_layers=layers,
        replaced=ranges,
        kept_layers=kept,
        translator_layers=translator_layers(ranges, layers, translators),
        translators=translators,
    )
    write_lineage(surrogate.config, lineage)
    return surrogate


def _load(target: Target, numbers: Mapping[int, int], dtype: str | torch.dtype | None) -> PreTrainedModel:
    config = surrogate_config(target.config, numbers)
    names = surrogate_names(target.config, numbers, target.names())
    surrogate = load_whole(
        MODEL_FOR_CAUSAL_LM_MAPPING[type(config)],
        config,
        {names[name]: weight for name, weight in target.weights(names).items()},
        target.dtype(names) if dtype in (None, "auto") else dtype,
        target.name,
        lambda name: target_name(target.config, numbers, name),
    )
    if target.generation_config is not None:
        surrogate.generation_config = target.generation_config
    if getattr(surrogate.config, "quantization_config", None) is None:
        # Else save_pretrained reverts what loading did: it would fuse experts that the target's shards hold fused, and
        # quantise what was dequantised for want of a GPU, without saying so in the configuration.
        surrogate._weight_conversions = None
    return surrogate
