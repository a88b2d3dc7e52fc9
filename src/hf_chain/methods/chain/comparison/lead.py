"""How far one quality is ahead of another, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_chain.methods.chain.comparison.curves import AT_MOST, Reading, Spread

ENDED = "the other was not trained far enough"
ONE_SEED = "one seed: no error known"


@dataclass(frozen=True)
class Lead:
    """How far one of two qualities is ahead of the other.

    Args:
        difference (`Spread`): Positive where it is the better one.
        error (`float`, *optional*): Standard error: over seeds, or with one seed that of shares of so many samples.
        wanted (`float`): Standard errors that it has to be ahead by.
    """

    difference: Spread
    error: float | None
    wanted: float

    @classmethod
    def of(
        cls,
        pairs: Mapping[int, tuple[float, Reading]],
        lower_is_better: bool,
        trials: int | None,
        wanted: float,
    ) -> Lead | None:
        """The lead of the first of each seed's two qualities over the second; `None` without pairs.

        Args:
            pairs (`Mapping[int, tuple[float, Reading]]`): Seed to two qualities; the second may be at least so good.
            lower_is_better (`bool`): Whether the lower one is the better one.
            trials (`int`, *optional*): Samples that each is a share of, where they are shares.
            wanted (`float`): Standard errors that it has to be ahead by.
        """
        if not pairs:
            return None
        sign = -1 if lower_is_better else 1
        difference = Spread(
            {
                seed: Reading(sign * (ours - theirs.value), AT_MOST if theirs.bound else "")
                for seed, (ours, theirs) in sorted(pairs.items())
            }
        )
        error = difference.standard_error
        if len(pairs) == 1 and trials and not difference.bound:
            ((ours, theirs),) = pairs.values()
            error = math.sqrt(sum(share * (1 - share) for share in (ours, theirs.value)) / trials)
        return cls(difference, error, wanted)

    @property
    def errors(self) -> float | None:
        """The lead in standard errors."""
        return self.difference.mean / self.error if self.error else None

    @property
    def holds(self) -> bool | None:
        """Whether it is ahead by more than the wanted standard errors; `None` where nobody can know."""
        if self.difference.mean <= 0:
            return False
        if self.difference.bound or self.error is None:
            return None
        return self.difference.mean > self.wanted * self.error

    @property
    def unknown(self) -> str:
        """Why nobody can know; empty where one can."""
        if self.holds is not None:
            return ""
        return ENDED if self.difference.bound else ONE_SEED

    def to_json(self) -> dict[str, Any]:
        """The difference, its error, and whether it is enough."""
        return {
            "difference": self.difference.to_json(),
            "standard_error": self.error,
            "standard_errors": self.errors,
            "standard_errors_wanted": self.wanted,
            "holds": self.holds,
            "unknown": self.unknown,
        }
