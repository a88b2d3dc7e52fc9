"""From a small surrogate to a larger one of the same target, with a model that is trained on it.

Trained on a small surrogate first, then on one nearer to the target, an encoder unlearns what holds on the small one
alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from hf_chain.adapters import check_no_adapter
from hf_chain.errors import HfChainError
from hf_chain.grafting.lineage import read_lineage, write_lineage
from hf_chain.grafting.ranges import LayerRange, Replaced, as_ranges
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.trained_layers import carry_layers
from hf_chain.models.grafted_vlm.assembly import with_image_half

if TYPE_CHECKING:
    from hf_chain.models.grafted_vlm import GraftedVLMForConditionalGeneration


def recut(
    vlm: GraftedVLMForConditionalGeneration,
    target: PreTrainedModel,
    replaced: Replaced,
    *,
    translators: int = 1,
) -> GraftedVLMForConditionalGeneration:
    """Puts the image half of a model onto another surrogate of its target, in which fewer layers are replaced.

    Layers that were trained on the first surrogate are the second one's too. Its translators are the target's own
    layers; fit them before training goes on.

    Args:
        vlm (`GraftedVLMForConditionalGeneration`): the model on its surrogate, LoRA merged; its image half is copied.
        target (`PreTrainedModel`): what the surrogate was cut from, in memory; it takes the trained layers.
        replaced (`str`, `LayerRange`, `range` or a sequence of them): the layers that the new surrogate replaces, in
            the target's numbers.
        translators (`int`): layers that stand in for each range.

    Returns:
        `GraftedVLMForConditionalGeneration`: in evaluation mode.

    Raises:
        HfChainError: when the model is on no surrogate, the ranges do not fit the target, or the new surrogate would
            replace a layer that the first one has.
    """
    for name, model in (("vlm", vlm), ("target", target)):
        if not isinstance(model, PreTrainedModel):
            raise HfChainError(f"{name} is a {type(model).__name__}: give the model itself, loaded")
        check_no_adapter(model, name)
    before = read_lineage(vlm.config)
    check_larger(as_ranges(replaced), before.replaced)
    carry_layers(vlm.language_model, target)
    surrogate = build_surrogate(target, replaced, translators=translators).to(vlm.device)
    lineage = read_lineage(surrogate.config)
    write_lineage(
        surrogate.config,
        replace(lineage, target=before.target, revision=before.revision, trained_layers=before.trained_layers),
    )
    config = copy.deepcopy(vlm.config)
    config.text_config = surrogate.config
    return with_image_half(config, vlm, surrogate)


def check_larger(replaced: Sequence[LayerRange], before: Sequence[LayerRange]) -> None:
    """Refuses to replace a layer that a smaller surrogate kept: it may have been trained there.

    Args:
        replaced (`Sequence[LayerRange]`): what the larger surrogate replaces.
        before (`Sequence[LayerRange]`): what the smaller one replaced.

    Raises:
        HfChainError: naming both.
    """
    already = {layer for span in before for layer in span.layers}
    if not {layer for span in replaced for layer in span.layers} <= already:
        new, old = (", ".join(map(str, ranges)) for ranges in (replaced, before))
        raise HfChainError(f"layers {new} cannot be replaced where {old} were before: name some of those")
