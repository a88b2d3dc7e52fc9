"""Passes over the calibration text: both models up to a splice, and what each pass measures and costs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from hf_chain.cost.macs import decoder_macs
from hf_chain.cost.steps import Segment, training_macs
from hf_chain.errors import HfChainError
from hf_chain.grafting.batches import Batch, batch_shape, forward_inputs, real_tokens
from hf_chain.grafting.translator.splice_error import SpliceErrorSum, token_weights
from hf_chain.grafting.translator.truncated import entered, truncated

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from hf_chain.grafting.translator.refit import Equations, Refit
    from hf_chain.grafting.translator.splice_error import Splice


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


def gradients_macs(
    target: PreTrainedConfig, surrogate: PreTrainedConfig, tokens: int, begin: int, trained: Collection[int]
) -> int:
    """MACs of one text when a translator is trained for gradients.

    From the first replaced layer on the target goes forward and back, and the surrogate so twice over. The second time
    a product with weights costs what it did the first time; one of two states, as attention has them, has two factors
    that change, which makes nine of its one.

    Args:
        target (`PreTrainedConfig`): the target's decoder.
        surrogate (`PreTrainedConfig`): the surrogate's.
        tokens (`int`): length of the text, padding included.
        begin (`int`): the first layer that is replaced.
        trained (`Collection[int]`): layers of the surrogate that are trained.

    Returns:
        `int`: multiply-accumulate operations.
    """
    after = range(begin, surrogate.num_hidden_layers)
    before = decoder_macs(target, tokens, layers=range(begin), head=False)
    there = decoder_macs(target, tokens, layers=range(begin, target.num_hidden_layers))
    once = decoder_macs(surrogate, tokens, layers=after)
    # Of so many tokens at once, less that of each alone.
    attention = once - tokens * decoder_macs(surrogate, 1, layers=after)
    weights = decoder_macs(surrogate, tokens, layers=trained, head=False)
    return before + 2 * there + 4 * once + 5 * attention + 2 * weights


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


RIDGES = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge strengths that are tried, relative to the mean diagonal of the normal equations."""

HELD_OUT_EVERY = 5
"""One calibration sequence in five chooses the ridge and measures the error; the others fit."""


@dataclass(frozen=True)
class Calibration:
    """What one pass found.

    Attributes:
        error (`float`): splice error on held-out sequences.
        tokens (`int`): tokens seen, without padding.
        macs (`int`): multiply-accumulate operations.
        solution (`torch.Tensor`, *optional*): what to fold into the weight; `None` when every solution is worse on
            held-out sequences than no change.
        ridge (`float`, *optional*): its ridge strength.
    """

    error: float
    tokens: int
    macs: int
    solution: torch.Tensor | None = None
    ridge: float | None = None


def calibrate(runs: SpliceRuns, refit: Refit | None) -> Calibration:
    """Runs both models up to the splice and solves for one weight.

    Args:
        runs (`SpliceRuns`): both models and the calibration text.
        refit (`Refit`, *optional*): the weight to fit; without one the error is measured alone.

    Returns:
        `Calibration`: the error, what it cost, and the solution.

    Raises:
        HfChainError: when there are fewer sequences than `HELD_OUT_EVERY`, or hidden states are not finite.
    """
    sums = None if refit is None else (refit.equations(), refit.equations())
    error = SpliceErrorSum()
    tokens = macs = rows = 0
    with refit.watching() if refit else nullcontext():
        for run in runs:
            found, expected, real = run.found, run.expected, real_tokens(run.batch).to(run.found.device)
            place = torch.arange(rows, rows + len(real), device=real.device) % HELD_OUT_EVERY
            held_out = real & (place == HELD_OUT_EVERY - 1)[:, None]
            error.add(found[held_out], expected[held_out])
            if refit is not None and sums is not None:
                for equations, chosen in zip(sums, (real & ~held_out, held_out), strict=True):
                    missing = expected[chosen].double() - found[chosen].double()
                    equations.add(*refit.problem(chosen, missing), token_weights(expected[chosen]))
            rows += len(real)
            tokens += int(real.sum())
            macs += run.macs
    if rows < HELD_OUT_EVERY:
        raise HfChainError(
            f"closed_form got {rows} calibration sequences: give at least {HELD_OUT_EVERY}, in batches that can be"
            " gone through more than once"
        )
    if not math.isfinite(error.error):
        raise HfChainError(
            f"hidden states after layers {runs.splice.replaced} are not finite, or all equal: load both models in"
            " float32 or bfloat16, and give real text"
        )
    if sums is None:
        return Calibration(error.error, tokens, macs)
    macs += sum(equations.macs for equations in sums) + sums[0].solution_macs(len(RIDGES))
    return Calibration(error.error, tokens, macs, *_solve(*sums))


def _solve(fitted: Equations, held_out: Equations) -> tuple[torch.Tensor, float] | tuple[None, None]:
    """The solution and the ridge strength that are best on held-out sequences."""
    best: tuple[torch.Tensor, float] | tuple[None, None] = (None, None)
    error = held_out.residual.item()
    for ridge in RIDGES:
        solution = fitted.solve(ridge)
        if solution is not None and (found := held_out.error(solution)) < error:
            best, error = (solution, ridge), found
    return best
