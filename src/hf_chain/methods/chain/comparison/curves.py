"""Quality against cost: the best that was reached for so much, what a quality costs, and how seeds differ."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

AT_LEAST, AT_MOST, UNCLEAR = "≥", "≤", "?"
"""What is known of a number that a curve does not hold; unclear is a sum of numbers of both kinds."""
CLOSE = 1.02
"""Costs that differ by less count as the same: trainings end at whole steps."""


@dataclass(frozen=True)
class Reading:
    """A number that was measured or interpolated, or the end of a curve beyond which it lies.

    Args:
        value (`float`): The number.
        bound (`str`): Empty, `≥` where the true number may be larger, `≤` where it may be smaller, `?` either.
    """

    value: float
    bound: str = ""

    def over(self, number: float) -> Reading:
        """It divided by an exact positive number."""
        return Reading(self.value / number, self.bound)

    def under(self, number: float) -> Reading:
        """An exact positive number divided by it."""
        return Reading(number / self.value, {AT_LEAST: AT_MOST, AT_MOST: AT_LEAST}.get(self.bound, self.bound))

    def to_json(self) -> dict[str, Any]:
        """Value and bound."""
        return {"value": self.value, "bound": self.bound}


def total(readings: Iterable[Reading]) -> Reading:
    """Their sum, and what is known of it."""
    known = list(readings)
    return Reading(sum(reading.value for reading in known), _bound(known))


def _bound(readings: Iterable[Reading]) -> str:
    bounds = {reading.bound for reading in readings} - {""}
    return bounds.pop() if len(bounds) == 1 else UNCLEAR if bounds else ""


class Curve:
    """The best quality that was reached for a cost, between its points a straight line over the logarithm of the cost.

    Args:
        points (`Iterable[tuple[float, float]]`): Cost, above 0, and quality, in any order; one or more.
        lower_is_better (`bool`): Whether the lower of two qualities is the better one.
    """

    def __init__(self, points: Iterable[tuple[float, float]], lower_is_better: bool) -> None:
        self._sign = -1.0 if lower_is_better else 1.0
        scores: dict[float, float] = {}
        for cost, quality in sorted(points):
            # Of a training that became worse, or of a second one that is, the better state is kept.
            best = max(scores.values(), default=-math.inf)
            scores[cost] = max(best, self._sign * quality)
        self._costs, self._scores = list(scores), list(scores.values())

    @property
    def first_cost(self) -> float:
        """Where it begins."""
        return self._costs[0]

    @property
    def last_cost(self) -> float:
        """Where it ends."""
        return self._costs[-1]

    @property
    def end(self) -> float:
        """The best quality of all."""
        return self._sign * self._scores[-1]

    def cost_of(self, quality: float) -> Reading:
        """What a quality costs.

        Args:
            quality (`float`): In the metric's unit.

        Returns:
            `Reading`: At most the first point's cost where that one is better already, at least the last one's where
            none is as good.
        """
        score = self._sign * quality
        place = bisect_left(self._scores, score)
        if place == len(self._scores):
            return Reading(self.last_cost, AT_LEAST)
        if place == 0:
            return Reading(self.first_cost, AT_MOST if score < self._scores[0] else "")
        before, after = self._scores[place - 1 : place + 1]
        share = (score - before) / (after - before)
        return Reading(self._costs[place - 1] ** (1 - share) * self._costs[place] ** share)

    def quality_at(self, cost: float) -> Reading | None:
        """The best quality for a cost.

        Args:
            cost (`float`): In the unit of the points.

        Returns:
            `Reading`, *optional*: `None` before the first point. Beyond the last one its quality, with `≥`: training
            on would have given at least so much.
        """
        if cost * CLOSE < self.first_cost:
            return None
        if cost > CLOSE * self.last_cost:
            return Reading(self.end, AT_LEAST)
        place = bisect_left(self._costs, cost)
        if place in (0, len(self._costs)):
            return Reading(self._sign * self._scores[min(place, len(self._costs) - 1)])
        low, high = self._costs[place - 1 : place + 1]
        share = math.log(cost / low) / math.log(high / low)
        before, after = self._scores[place - 1 : place + 1]
        return Reading(self._sign * (before + share * (after - before)))

    def gain_of_last_doubling(self) -> float | None:
        """What the second half of its cost brought, 0 or more; `None` where it begins later."""
        half = self.quality_at(self.last_cost / 2)
        return None if half is None else self._sign * (self.end - half.value)


@dataclass(frozen=True)
class Spread:
    """A number with every seed.

    Args:
        seeds (`Mapping[int, Reading]`): Seed to the number; one or more.
    """

    seeds: Mapping[int, Reading]

    @classmethod
    def of(cls, seeds: Mapping[int, Reading | float | None]) -> Spread | None:
        """The spread over the seeds whose number is known; `None` where there is none."""
        known = {
            seed: found if isinstance(found, Reading) else Reading(found)
            for seed, found in sorted(seeds.items())
            if found is not None
        }
        return cls(known) if known else None

    @property
    def mean(self) -> float:
        """Over the seeds; of bounds where they are some."""
        return fmean(reading.value for reading in self.seeds.values())

    @property
    def bound(self) -> str:
        """What is known of the mean where it is no number that was read."""
        return _bound(self.seeds.values())

    @property
    def standard_error(self) -> float | None:
        """Of the mean; `None` with one seed, or where some are bounds."""
        values = [reading.value for reading in self.seeds.values()]
        return stdev(values) / math.sqrt(len(values)) if len(values) > 1 and not self.bound else None

    def to_json(self) -> dict[str, Any]:
        """Mean, its standard error and bound, and every seed's figure."""
        return {
            "mean": self.mean,
            "standard_error": self.standard_error,
            "bound": self.bound,
            "seeds": {str(seed): reading.to_json() for seed, reading in self.seeds.items()},
        }
