"""A model without some of its layers: a stock model of its own class, of which only kept weights are read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import num_layers
from hf_chain.grafting.layer_config import surrogate_config
from hf_chain.grafting.lineage import SurrogateLineage, write_lineage
from hf_chain.grafting.ranges import LayerRange, check_ranges, kept_layers, translator_layers
from hf_chain.grafting.target import Target
from hf_chain.grafting.weight_names import surrogate_names, target_name

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
    surrogate = _load(target, {layer: place for place, layer in enumerate(kept)}, dtype)
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


def _load(target: Target, places: Mapping[int, int], dtype: str | torch.dtype | None) -> PreTrainedModel:
    config = surrogate_config(target.config, places)
    names = surrogate_names(target.config, places, target.names())
    weights = target.weights(names)
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    try:
        with _one_tensor_at_a_time():
            surrogate, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict={names[name]: weight for name, weight in weights.items()},
                dtype=dtype or target.dtype(),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, HfChainError):
            raise
        reason = " ".join(str(error).split())[:200].rstrip(". ")
        raise HfChainError(f"{target.name} cannot be loaded as {model_class.__name__}: {reason}") from error
    _check_whole(report, target, places)
    if target.generation_config is not None:
        surrogate.generation_config = target.generation_config
    if getattr(surrogate.config, "quantization_config", None) is None:
        # Else save_pretrained reverts what loading did: it would fuse experts that the target's shards hold fused, and
        # quantise what was dequantised for want of a GPU, without saying so in the configuration.
        surrogate._weight_conversions = None
    return surrogate


def _check_whole(report: Mapping[str, Any], target: Target, places: Mapping[int, int]) -> None:
    """Refuses a surrogate with weights that no checkpoint gave: transformers only warns of them."""
    for name, found, expected in report["mismatched_keys"]:
        raise HfChainError(
            f"{target_name(target.config, places, name)} of {target.name} has shape {list(found)}, but its"
            f" configuration says {list(expected)}: the two do not belong together"
        )
    missing = sorted(target_name(target.config, places, name) for name in report["missing_keys"])
    if missing:
        raise HfChainError(f"{target.name} lacks {missing[0]} and {len(missing) - 1} more weights: give a whole model")


@contextmanager
def _one_tensor_at_a_time() -> Iterator[None]:
    # By default transformers reads ahead in threads, which for fused experts means the whole model at once.
    switch = "HF_DEACTIVATE_ASYNC_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before
