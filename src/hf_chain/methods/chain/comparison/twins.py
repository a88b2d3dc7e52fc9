"""Curves of each size trained alone: what more training still brings, and how far sizes lie apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hf_chain.methods.chain.comparison.curves import CLOSE, Curve, Reading, Spread
from hf_chain.methods.chain.comparison.lead import Lead
from hf_chain.methods.chain.comparison.tree import Delivery, Size, Unit, name_of

APART = 4
"""Standard errors that sizes have to lie apart before a chain of them can show anything (rule c)."""


@dataclass
class Twins:
    """A size trained alone, to one point or more with every seed.

    Args:
        size (`Size`): The size.
        lower_is_better (`bool`): Whether the lower of two qualities is the better one.
        deliveries (`list[Delivery]`): Members that were trained alone, each a point.
    """

    size: Size
    lower_is_better: bool
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def seeds(self) -> list[int]:
        """Seeds that it was trained with."""
        return sorted({delivery.seed for delivery in self.deliveries})

    @property
    def trials(self) -> int | None:
        """Samples that its qualities are shares of."""
        return next((delivery.trials for delivery in self.deliveries if delivery.trials), None)

    def curve(self, seed: int, unit: Unit = "macs") -> Curve | None:
        """Quality against cost with a seed; `None` where there is no point, or none with a known cost."""
        return curve_of((one for one in self.deliveries if one.seed == seed), unit, self.lower_is_better)

    def curves(self) -> dict[int, Curve]:
        """Seed to its curve over MACs."""
        found = {seed: self.curve(seed) for seed in self.seeds}
        return {seed: curve for seed, curve in found.items() if curve is not None}

    def longest(self) -> dict[int, Curve]:
        """The curves that go as far as the longest one: only their ends compare."""
        curves = self.curves()
        most = max((curve.last_cost for curve in curves.values()), default=0.0)
        return {seed: curve for seed, curve in curves.items() if curve.last_cost * CLOSE >= most}

    @property
    def best(self) -> Spread | None:
        """Where the longest curves end."""
        return Spread.of({seed: curve.end for seed, curve in self.longest().items()})

    @property
    def last_doubling(self) -> Spread | None:
        """What the second half of their MACs brought."""
        return Spread.of({seed: curve.gain_of_last_doubling() for seed, curve in self.longest().items()})

    def to_json(self) -> dict[str, Any]:
        """Its points, where they end and what the last doubling brought."""
        ends, gains = self.best, self.last_doubling
        points = [
            {"seed": one.seed, "run": name_of(one.run), "member": one.name, "value": one.quality}
            | {"macs": one.lineage("macs"), "seconds": one.lineage("seconds")}
            for one in sorted(self.deliveries, key=lambda one: (one.seed, one.lineage("macs") or 0))
        ]
        return {
            "points": points,
            "end": ends.to_json() if ends else None,
            "last_doubling": gains.to_json() if gains else None,
        }


def curve_of(deliveries: Iterable[Delivery], unit: Unit, lower_is_better: bool) -> Curve | None:
    """Quality against the cost of lineages; `None` where no member has both.

    Args:
        deliveries (`Iterable[Delivery]`): Members of one size and seed.
        unit (`Unit`): What costs are counted in.
        lower_is_better (`bool`): Whether the lower of two qualities is the better one.
    """
    points = [(one.lineage(unit), one.quality) for one in deliveries]
    known = [(cost, quality) for cost, quality in points if cost and quality is not None]
    return Curve(known, lower_is_better) if known else None


@dataclass(frozen=True)
class Gap:
    """What a size has over a smaller one, both trained alone.

    Args:
        smaller (`Size`): The smaller one.
        larger (`Size`): The larger one.
        macs (`Spread`, *optional*): The most MACs that both were trained for; `None` where one ends before the other
            begins.
        equal (`Lead`, *optional*): Of the larger one at those.
        ends (`Lead`, *optional*): Of the larger one, each where its longest curves end.
    """

    smaller: Size
    larger: Size
    macs: Spread | None
    equal: Lead | None
    ends: Lead | None

    @classmethod
    def between(cls, small: Twins, large: Twins) -> Gap:
        """The gap with the seeds that both were trained with."""
        pairs = {seed: (small.curves()[seed], curve) for seed, curve in large.curves().items() if seed in small.seeds}
        at, equal, ends = {}, {}, {}
        for seed, (low, high) in pairs.items():
            macs = min(low.last_cost, high.last_cost)
            theirs, ours = low.quality_at(macs), high.quality_at(macs)
            if theirs and ours:
                at[seed], equal[seed] = macs, (ours.value, theirs)
            if seed in small.longest() and seed in large.longest():
                ends[seed] = (high.end, Reading(low.end))
        leads = [Lead.of(found, large.lower_is_better, large.trials, APART) for found in (equal, ends)]
        return cls(small.size, large.size, Spread.of(at), *leads)

    def to_json(self) -> dict[str, Any]:
        """Where sizes were compared, and both leads."""
        return {
            "smaller": self.smaller.label,
            "larger": self.larger.label,
            "macs": self.macs.to_json() if self.macs else None,
            "at_equal_macs": self.equal.to_json() if self.equal else None,
            "at_the_ends": self.ends.to_json() if self.ends else None,
        }
