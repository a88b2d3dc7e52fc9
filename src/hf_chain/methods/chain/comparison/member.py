"""What a member of a chain cost against a twin at equal quality, and whether it uses its size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hf_chain.methods.chain.comparison.curves import Reading, Spread
from hf_chain.methods.chain.comparison.lead import Lead
from hf_chain.methods.chain.comparison.tree import UNITS, Delivery, Kind, Size, Unit
from hf_chain.methods.chain.comparison.twins import Twins, curve_of

AHEAD = 2
"""Standard errors that a member has to be ahead of its continued predecessor by (rule b)."""


@dataclass(frozen=True)
class MemberVerdict:
    """A member of a chain, over its seeds.

    Args:
        name (`str`): Its name.
        size (`Size`): Its shape.
        kind (`Kind`): Whether it was grown, trained on, or has nothing of another shape in it.
        delivered (`bool`): Whether the family is counted with it: it is the last of its size, and no control.
        quality (`Spread`): Its metric.
        cost (`Mapping[Unit, Spread | None]`): What is needed to have it.
        twin (`Mapping[Unit, Spread | None]`): What its twin needs to be as good; `None` where there is no twin.
        speed_up (`Mapping[Unit, Spread | None]`): The one divided by the other.
        predecessor (`Size`, *optional*): Shape that it has grown from.
        continued (`Spread`, *optional*): Quality of that shape for the same MACs.
        use (`Lead`, *optional*): How far it is ahead of that.
    """

    name: str
    size: Size
    kind: Kind
    delivered: bool
    quality: Spread
    cost: Mapping[Unit, Spread | None]
    twin: Mapping[Unit, Spread | None]
    speed_up: Mapping[Unit, Spread | None]
    predecessor: Size | None = None
    continued: Spread | None = None
    use: Lead | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything, under names that stay."""
        values: dict[str, Any] = {
            "member": self.name,
            "size": self.size.label,
            "parameters": self.size.parameters,
            "kind": self.kind,
            "delivered": self.delivered,
            "quality": self.quality.to_json(),
        }
        for unit in UNITS:
            for what in ("cost", "twin", "speed_up"):
                found = getattr(self, what)[unit]
                values[f"{what}_{unit}"] = found.to_json() if found else None
        values["predecessor"] = self.predecessor.label if self.predecessor else None
        values["continued_predecessor"] = self.continued.to_json() if self.continued else None
        values["uses_its_size"] = self.use.to_json() if self.use else None
        return values


def judge_member(
    seeds: Mapping[int, Delivery], twins: Mapping[Size, Twins], lower_is_better: bool, delivered: bool
) -> MemberVerdict | None:
    """What is known of a member over its seeds; `None` where its quality or cost is known with none.

    Args:
        seeds (`Mapping[int, Delivery]`): Seed to the member.
        twins (`Mapping[Size, Twins]`): Sizes trained alone.
        lower_is_better (`bool`): Whether the lower of two qualities is the better one.
        delivered (`bool`): Whether the family is counted with it.
    """
    known = {seed: one for seed, one in seeds.items() if one.quality is not None and one.lineage("macs")}
    quality = Spread.of({seed: one.quality for seed, one in known.items()})
    if quality is None:
        return None
    some = next(iter(known.values()))
    cost: dict[Unit, Spread | None] = {}
    twin, speed_up = dict(cost), dict(cost)
    for unit in UNITS:
        own = {seed: one.lineage(unit) for seed, one in known.items()}
        alone = {seed: twin_cost(one, twins, unit) for seed, one in known.items()}
        cost[unit], twin[unit] = Spread.of(own), Spread.of(alone)
        speed_up[unit] = Spread.of({seed: ratio(alone[seed], own[seed]) for seed in known})
    controls = {seed: continued_predecessor(one, twins, lower_is_better) for seed, one in known.items()}
    pairs = {seed: (one.quality or 0.0, control) for seed, one in known.items() if (control := controls[seed])}
    before = some.predecessor
    return MemberVerdict(
        some.name,
        some.size,
        some.kind,
        delivered,
        quality,
        cost,
        twin,
        speed_up,
        before.size if before else None,
        Spread.of(controls),
        Lead.of(pairs, lower_is_better, some.trials, AHEAD),
    )


def twin_cost(one: Delivery, twins: Mapping[Size, Twins], unit: Unit) -> Reading | None:
    """What a twin with the same seed needs to be as good as a member; what was trained alone is its own."""
    own = one.lineage(unit)
    if one.kind == "alone":
        return Reading(own) if own else None
    curve = twins[one.size].curve(one.seed, unit) if one.size in twins else None
    return curve.cost_of(one.quality) if curve is not None and one.quality is not None else None


def ratio(twin: Reading | None, cost: float | None) -> Reading | None:
    """How much dearer a twin is, where both costs are known."""
    return twin.over(cost) if twin is not None and cost else None


def continued_predecessor(one: Delivery, twins: Mapping[Size, Twins], lower_is_better: bool) -> Reading | None:
    """Quality of the shape that a member has grown from, trained on for the MACs that the member needed.

    What has grown, in that shape, out of the very predecessor counts first; then that shape trained alone.

    Args:
        one (`Delivery`): The member.
        twins (`Mapping[Size, Twins]`): Sizes trained alone.
        lower_is_better (`bool`): Whether the lower of two qualities is the better one.
    """
    before, macs = one.predecessor, one.lineage("macs")
    if before is None or not macs:
        return None
    curves = []
    if before.kind != "alone":
        same = [before, *_trained_on(before, one.seed)]
        curves.append(curve_of(same, "macs", lower_is_better) if len(same) > 1 else None)
    if before.size in twins:
        curves.append(twins[before.size].curve(one.seed))
    found = [reading for curve in curves if curve is not None and (reading := curve.quality_at(macs))]
    # Else what was trained furthest says at least how good it would be.
    sign = -1 if lower_is_better else 1
    return next((one for one in found if not one.bound), max(found, key=lambda one: sign * one.value, default=None))


def _trained_on(before: Delivery, seed: int) -> Iterable[Delivery]:
    for child in before.children:
        if child.size == before.size and child.seed == seed:
            yield child
            yield from _trained_on(child, seed)
