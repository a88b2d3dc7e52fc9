"""Least-squares fit of two joined straight segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TwoSegments:
    """Two straight segments that meet at a knot.

    Attributes:
        start (`int`): x of the first value.
        knot (`int`): x where the segments meet.
        slopes (`tuple[float, float]`): of the segment before the knot and of the one after it.
        values (`list[float]`): the segments at x = start, start + 1, …
    """

    start: int
    knot: int
    slopes: tuple[float, float]
    values: list[float]

    @property
    def falls_at_knot(self) -> bool:
        """Whether the second segment falls, and faster than the first."""
        return self.slopes[1] < min(0, self.slopes[0])


def fit_two_segments(values: Sequence[float], start: int = 0) -> TwoSegments:
    """Fits y = a + b·x + c·max(0, x − k) for each inner x as k and takes the k with the least squared error.

    Args:
        values (`Sequence[float]`): y, at least three values.
        start (`int`, *optional*, defaults to 0): x of the first value; the others follow in steps of 1.

    Returns:
        `TwoSegments`: the best fit.

    Raises:
        ValueError: when there are fewer than three finite values.
    """
    x = start + np.arange(len(values), dtype=np.float64)
    y = np.asarray(values, dtype=np.float64)
    best, least = None, np.inf
    for knot in range(start + 1, start + len(values) - 1):
        design = np.stack([np.ones_like(x), x, np.maximum(0, x - knot)], axis=1)
        coefficients = np.linalg.lstsq(design, y, rcond=None)[0]
        fitted = design @ coefficients
        error = float(((fitted - y) ** 2).sum())
        if error < least:
            least = error
            before, bend = float(coefficients[1]), float(coefficients[2])
            best = TwoSegments(start, knot, (before, before + bend), fitted.tolist())
    if best is None:
        raise ValueError(f"two segments need three finite values at least, not {list(values)}")
    return best
