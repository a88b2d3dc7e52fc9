"""What a translator costs, in multiply-accumulate operations; padding is computed, so it counts."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from hf_chain.cost.macs import decoder_macs
from hf_chain.cost.steps import Segment, training_macs
from hf_chain.grafting.batches import batch_shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_chain.grafting.batches import Batch


def forward_macs(model: PreTrainedModel, batch: Batch, layers: Iterable[int] | None = None, head: bool = False) -> int:
    """MACs of one forward pass.

    Args:
        model (`PreTrainedModel`): a decoder-only language model.
        batch (`Batch`): text, `[B, L]`.
        layers (`Iterable[int]`, *optional*): the layers that are run; all by default.
        head (`bool`): whether the language-model head is run too.

    Returns:
        `int`: multiply-accumulate operations.
    """
    rows, length = batch_shape(batch)
    return rows * decoder_macs(model.config, length, layers=layers, head=head)


def step_macs(
    surrogate: PreTrainedModel, batch: Batch, layers: Iterable[int], trained: Collection[int], head: bool
) -> int:
    """MACs of one forward and backward pass in which some layers are trained.

    Args:
        surrogate (`PreTrainedModel`): the surrogate.
        batch (`Batch`): text, `[B, L]`.
        layers (`Iterable[int]`): the layers that are run.
        trained (`Collection[int]`): those that are trained.
        head (`bool`): whether the language-model head is run.

    Returns:
        `int`: multiply-accumulate operations.
    """
    segments = [Segment(str(i), forward_macs(surrogate, batch, [i]), float(i in trained)) for i in layers]
    return training_macs([*segments, Segment("head", forward_macs(surrogate, batch, [], head))])
