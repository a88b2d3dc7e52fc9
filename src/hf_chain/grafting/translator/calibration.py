"""One pass over the calibration text: the error at a splice, and the normal equations of the next fit."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hf_chain.errors import HfChainError
from hf_chain.grafting.batches import real_tokens
from hf_chain.grafting.translator.splice_error import SpliceErrorSum, token_weights

if TYPE_CHECKING:
    from hf_chain.grafting.translator.refit import Equations, Refit
    from hf_chain.grafting.translator.splice_runs import SpliceRuns

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
