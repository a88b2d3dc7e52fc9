"""One pass over the calibration text: the error at a splice, and the normal equations of the next fit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch

from hf_chain.errors import HfChainError
from hf_chain.grafting.translator.cost import forward_macs
from hf_chain.grafting.translator.splice_error import SpliceErrorSum, token_weights
from hf_chain.grafting.translator.truncated import Batch, forward_inputs, real_tokens, truncated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_chain.grafting.translator.refit import Refit
    from hf_chain.grafting.translator.splice import Splice

RIDGES = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge strengths that are tried, relative to the mean diagonal of the normal equations."""

HELD_OUT_EVERY = 5
"""One calibration sequence in five chooses the ridge and measures the error; the others fit."""


class CalibrationPass:
    """What one pass found.

    Args:
        surrogate (`PreTrainedModel`): the surrogate, in evaluation mode.
        target (`PreTrainedModel`): what it was cut from, likewise.
        splice (`Splice`): the splice.
        refit (`Refit`, *optional*): the write that is fitted next; without one the error is measured alone.
        batches (`Iterable[Batch]`): calibration text.

    Attributes:
        error (`float`): present splice error on held-out sequences.
        tokens (`int`): tokens seen, without padding.
        macs (`int`): multiply-accumulate operations so far.

    Raises:
        HfChainError: when there are fewer sequences than `HELD_OUT_EVERY`, or hidden states are not finite.
    """

    def __init__(
        self,
        surrogate: PreTrainedModel,
        target: PreTrainedModel,
        splice: Splice,
        refit: Refit | None,
        batches: Iterable[Batch],
    ) -> None:
        self._sums = None if refit is None else (refit.equations(), refit.equations())
        self.tokens = self.macs = rows = 0
        error = SpliceErrorSum()
        for batch in batches:
            with truncated(target, [splice.target_layer]):
                (expected,) = target(**forward_inputs(target, batch))
            with truncated(surrogate, [splice.surrogate_layer]), refit.watching() if refit else nullcontext():
                (found,) = surrogate(**forward_inputs(surrogate, batch))
            expected, real = expected.to(found.device), real_tokens(batch).to(found.device)
            place = torch.arange(rows, rows + len(real), device=real.device) % HELD_OUT_EVERY
            held_out = real & (place == HELD_OUT_EVERY - 1)[:, None]
            error.add(found[held_out], expected[held_out])
            if refit is not None and self._sums is not None:
                for sums, chosen in zip(self._sums, (real & ~held_out, held_out), strict=True):
                    missing = expected[chosen].double() - found[chosen].double()
                    sums.add(*refit.problem(chosen, missing), token_weights(expected[chosen]))
            rows += len(real)
            self.tokens += int(real.sum())
            self.macs += forward_macs(target, batch, range(splice.target_layer + 1))
            self.macs += forward_macs(surrogate, batch, range(splice.surrogate_layer + 1))
        if rows < HELD_OUT_EVERY:
            raise HfChainError(
                f"closed_form got {rows} calibration sequences: give at least {HELD_OUT_EVERY}, in batches that can be"
                " gone through more than once"
            )
        self.error = error.error
        if not math.isfinite(self.error):
            raise HfChainError(
                f"hidden states after layers {splice.replaced} are not finite, or all equal: load both models in"
                " float32 or bfloat16, and give real text"
            )

    def solve(self) -> tuple[torch.Tensor, float] | None:
        """The solution `[F, D]` and the ridge strength that fit the held-out sequences best.

        Returns:
            `tuple` or `None`: nothing where every fit is worse on them than no change at all.
        """
        assert self._sums is not None
        fitted, held_out = self._sums
        self.macs += fitted.macs + held_out.macs
        best, error = None, held_out.residual.item()
        for ridge in RIDGES:
            solution = fitted.solve(ridge)
            self.macs += fitted.solution_macs
            if solution is not None and held_out.error(solution) < error:
                best, error = (solution, ridge), held_out.error(solution)
        return best
