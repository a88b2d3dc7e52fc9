"""What a whole family costs against the twins of all its members at equal quality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_chain.methods.chain.comparison.curves import Spread, total
from hf_chain.methods.chain.comparison.member import ratio, twin_cost
from hf_chain.methods.chain.comparison.tree import UNITS, Delivery, Size, Unit
from hf_chain.methods.chain.comparison.twins import Twins


@dataclass(frozen=True)
class FamilyVerdict:
    """A family: one member of each size, and what its twins cost at the same qualities.

    Args:
        members (`Sequence[str]`): Names of the members that are counted.
        largest (`str`): The largest of them.
        cost (`Mapping[Unit, Spread | None]`): Of all trainings, decay branches included, shared ones once.
        twins (`Mapping[Unit, Spread | None]`): Of the twins of all members; what was trained alone is its own twin.
        ratio (`Mapping[Unit, Spread | None]`): The one divided by the other.
        largest_share (`Mapping[Unit, Spread | None]`): The family's cost divided by that of the largest one's twin.
        without_twin (`Sequence[str]`): Members whose twin was not trained with some seed.
    """

    members: Sequence[str]
    largest: str
    cost: Mapping[Unit, Spread | None]
    twins: Mapping[Unit, Spread | None]
    ratio: Mapping[Unit, Spread | None]
    largest_share: Mapping[Unit, Spread | None]
    without_twin: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Everything, under names that stay."""
        values: dict[str, Any] = {"members": list(self.members), "largest": self.largest}
        for unit in UNITS:
            for what in ("cost", "twins", "ratio", "largest_share"):
                found = getattr(self, what)[unit]
                values[f"{what}_{unit}"] = found.to_json() if found else None
        return values | {"without_twin": list(self.without_twin)}


def judge_family(seeds: Mapping[int, Sequence[Delivery]], twins: Mapping[Size, Twins]) -> FamilyVerdict | None:
    """What a family costs against the twins of all its members; `None` where nothing was measured yet.

    Args:
        seeds (`Mapping[int, Sequence[Delivery]]`): Seed to all that the run has trained.
        twins (`Mapping[Size, Twins]`): Sizes trained alone.
    """
    all_counted = {seed: last_of_each_size(family) for seed, family in seeds.items()}
    names = max(([one.name for one in members] for members in all_counted.values()), key=len)
    # A seed whose run has not come so far belongs in no mean with the others.
    counted = {seed: members for seed, members in all_counted.items() if [one.name for one in members] == names}
    if not names:
        return None
    sums: dict[str, dict[Unit, Spread | None]] = {"cost": {}, "twins": {}, "ratio": {}, "largest_share": {}}
    missing: dict[str, None] = {}
    for unit in UNITS:
        figures: dict[str, dict[int, Any]] = {name: {} for name in sums}
        for seed, members in counted.items():
            cost = family_cost(seeds[seed], unit)
            alone = {one.name: twin_cost(one, twins, unit) for one in members}
            if unit == "macs":
                missing |= dict.fromkeys(name for name, found in alone.items() if found is None)
            known = [found for found in alone.values() if found is not None]
            whole = total(known) if len(known) == len(alone) else None
            largest = alone[names[-1]]
            figures["cost"][seed], figures["twins"][seed] = cost, whole
            figures["ratio"][seed] = ratio(whole, cost)
            figures["largest_share"][seed] = largest.under(cost) if largest and cost else None
        for name, found in figures.items():
            sums[name][unit] = Spread.of(found)
    return FamilyVerdict(names, names[-1], **sums, without_twin=list(missing))


def last_of_each_size(family: Iterable[Delivery]) -> list[Delivery]:
    """The members that a family is counted with: of each size the one that needed most, without controls."""
    last: dict[Size, Delivery] = {}
    for one in sorted(family, key=lambda one: one.lineage("macs") or 0):
        if not one.is_control and one.quality is not None and one.lineage("macs"):
            last[one.size] = one
    return sorted(last.values(), key=lambda one: one.size.number)


def family_cost(family: Sequence[Delivery], unit: Unit) -> float | None:
    """What all members of a family cost together, controls left out; `None` where it is not all known.

    Of an ancestor that is another run's, what others grow from is paid.

    Args:
        family (`Sequence[Delivery]`): All that a run has trained.
        unit (`Unit`): What costs are counted in.
    """
    costs: dict[Delivery, float] = {}
    for one in family:
        if not one.is_control:
            for payer, cost in one.paid(unit).items():
                costs[payer] = max(costs.get(payer, 0), cost)
    return sum(costs.values()) if costs and all(costs.values()) else None
