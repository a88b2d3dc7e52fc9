"""Both models up to a splice, over a text several times, in which one layer alone changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from hf_chain.grafting.batches import Batch, forward_inputs
from hf_chain.grafting.translator.cost import forward_macs
from hf_chain.grafting.translator.truncated import entered, truncated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_chain.grafting.translator.splice import Splice

KEPT_BYTES = 2 << 30
"""Bytes of text and hidden states that are kept in the CPU's memory; what is more is run anew in every pass."""


def kept_texts(hidden_size: int, tokens: int, itemsize: int, embedded: bool = False) -> int:
    """Of how many texts, all of one length, all is kept.

    Args:
        hidden_size (`int`): d.
        tokens (`int`): length of a text, padding included.
        itemsize (`int`): bytes of a number of the hidden states.
        embedded (`bool`): whether the texts come as embeddings.

    Returns:
        `int`: texts.
    """
    return KEPT_BYTES // max(1, tokens * hidden_size * itemsize * (3 if embedded else 2))


@dataclass(frozen=True)
class SpliceRun:
    """What both models made of one batch.

    Attributes:
        batch (`Batch`): the text.
        found (`torch.Tensor` of shape `[B, L, d]`): the surrogate's hidden states at the splice.
        expected (`torch.Tensor` of shape `[B, L, d]`): the target's.
        macs (`int`): multiply-accumulate operations of what was run now.
    """

    batch: Batch
    found: torch.Tensor
    expected: torch.Tensor
    macs: int


@dataclass(frozen=True)
class _Kept:
    """What is the same in every pass: of the surrogate, what its last translator layer gets."""

    batch: Batch
    entering: torch.Tensor | None
    expected: torch.Tensor

    @property
    def nbytes(self) -> int:
        return sum(
            tensor.nbytes for tensor in (*self.batch.values(), self.expected, self.entering) if tensor is not None
        )


class SpliceRuns:
    """Passes over a text; all layers before the splice are run in the first one, its last translator layer in each.

    Args:
        surrogate (`PreTrainedModel`): the surrogate, in evaluation mode. Between passes only the layer before the
            splice may change.
        target (`PreTrainedModel`): what it was cut from, likewise; it does not change.
        splice (`Splice`): the splice.
        batches (`Iterable[Batch]`): text; what is kept is read once.
    """

    def __init__(
        self, surrogate: PreTrainedModel, target: PreTrainedModel, splice: Splice, batches: Iterable[Batch]
    ) -> None:
        self.surrogate, self.target, self.splice, self.batches = surrogate, target, splice, batches
        self._kept: list[_Kept] = []
        self._free = KEPT_BYTES
        self._all_kept = False

    def __iter__(self) -> Iterator[SpliceRun]:
        """One pass, in the order of the text."""
        begun = len(self._kept)
        yield from map(self._again, self._kept[:begun])
        if self._all_kept:
            return
        for batch in islice(iter(self.batches), begun, None):
            yield self._whole(batch)
        self._all_kept = self._free >= 0

    def _whole(self, batch: Batch) -> SpliceRun:
        last = self.splice.surrogate_layer
        with truncated(self.target, [self.splice.target_layer]):
            (expected,) = self.target(**forward_inputs(self.target, batch))
        with truncated(self.surrogate, [last - 1, last] if last else [last]):
            *before, found = self.surrogate(**forward_inputs(self.surrogate, batch))
        self._keep(batch, before[0] if before else None, expected)
        macs = forward_macs(self.target, batch, range(self.splice.target_layer + 1))
        macs += forward_macs(self.surrogate, batch, range(last + 1))
        return SpliceRun(batch, found, expected.to(found.device), macs)

    def _keep(self, batch: Batch, entering: torch.Tensor | None, expected: torch.Tensor) -> None:
        """Keeps a batch, unless one before it found no place: what is kept is the beginning of the text."""
        if self._free < 0:
            return
        text = {name: tensor.cpu() for name, tensor in batch.items()}
        kept = _Kept(text, None if entering is None else entering.cpu(), expected.cpu())
        self._free -= kept.nbytes
        if self._free >= 0:
            self._kept.append(kept)

    def _again(self, kept: _Kept) -> SpliceRun:
        last, inputs = self.splice.surrogate_layer, forward_inputs(self.surrogate, kept.batch)
        with truncated(self.surrogate, [last]):
            if kept.entering is None:
                (found,) = self.surrogate(**inputs)
            else:
                with entered(self.surrogate, last, kept.entering):
                    (found,) = self.surrogate(**inputs)
        return SpliceRun(
            kept.batch, found, kept.expected.to(found.device), forward_macs(self.surrogate, kept.batch, [last])
        )
