"""AdamW's state of a predecessor, grown by the map that the gradient has where the width is exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from hf_chain.errors import HfChainError
from hf_chain.families import Stream, Weight
from hf_chain.growth.depth import DepthRule
from hf_chain.growth.exact import StreamGrowth, streams_of
from hf_chain.growth.growth import Growth
from hf_chain.growth.pad import Isometric
from hf_chain.growth.units import UnitRule
from hf_chain.growth.width import Tiled

MOMENTS = {"exp_avg": 1, "exp_avg_sq": 2}
"""AdamW's running means, and the power of the gradient that they are means of."""


def grow_optimizer_state(growth: Growth, state: Mapping[str, Any], depth: DepthRule) -> dict[str, Any]:
    """Grow the state of AdamW along with the weights.

    A weight that was multiplied by f has a gradient divided by f: the first moment is divided by f, the second by f²,
    and both stand where the weight stands. What is new has moments of zero, and a new block has a step of zero.

    Args:
        growth (`Growth`): What grew.
        state (`Mapping`): As `torch.distributed.checkpoint.state_dict.get_optimizer_state_dict` gives it: `state` and
            `param_groups` by the names of weights.
        depth (`Callable`): Which predecessor block each successor block comes from.

    Returns:
        `dict`: The same of the successor, for `set_optimizer_state_dict`.

    Raises:
        HfChainError: When it is the state of something other than AdamW, or of another model.
    """
    held = state.get("state", {})
    _check(held, {name for name, _ in growth.predecessor.named_parameters()})
    walks = {moment: _Walk(growth, held, moment, depth) for moment in MOMENTS}
    of_group = {name: number for number, group in enumerate(state["param_groups"]) for name in group["params"]}
    groups = [{**group, "params": []} for group in state["param_groups"]]
    grown: dict[str, dict[str, torch.Tensor]] = {}
    for name in growth.names:
        source, inserted = walks["exp_avg"].source(name)
        if source in of_group:
            groups[of_group[source]]["params"].append(name)
        if source in held:
            step = torch.as_tensor(held[source]["step"])
            moments = {moment: walk.grown(name).to(held[source][moment]) for moment, walk in walks.items()}
            grown[name] = {moment: value.contiguous() for moment, value in moments.items()}
            grown[name]["step"] = torch.zeros_like(step) if inserted else step.clone()
    return {"state": grown, "param_groups": groups}


def _check(held: Mapping[str, Mapping[str, Any]], names: set[str]) -> None:
    for name, entries in held.items():
        if name not in names:
            raise HfChainError(
                f"the optimizer's state holds {name!r}, no weight of the predecessor: give its own state"
            )
        if further := set(entries) ^ {*MOMENTS, "step"}:
            raise HfChainError(
                f"the optimizer's state of {name} differs from AdamW's in {min(further)!r}: only AdamW's can grow"
            )


class _Walk:
    """One moment of all weights."""

    def __init__(self, growth: Growth, held: Mapping[str, Any], moment: str, depth: DepthRule) -> None:
        parts = (growth.family, growth.predecessor, growth.successor, growth.new, growth.seed)
        self.growth = _MomentGrowth(*parts, held=held, moment=moment)
        self.streams = streams_of(self.growth, depth, partial(_Moments, power=MOMENTS[moment]))

    def source(self, name: str) -> tuple[str, bool]:
        """The predecessor's weight that a weight of the successor comes from, and whether its block is new."""
        slot = self.growth.family.slot(name)
        if slot is None or slot.block is None:
            return name, False
        origin = self.streams[id(slot.stream)].origins[slot.block]
        return slot.stream.in_block(name, origin.block), bool(origin.inserted)

    def grown(self, name: str) -> torch.Tensor:
        """The moment of a weight of the successor, float64."""
        slot = self.growth.family.slot(name)
        return self.growth.weight(name) if slot is None else self.streams[id(slot.stream)].weight(name, slot)


@dataclass(frozen=True)
class _MomentGrowth(Growth):
    """A growth whose weights are a moment of theirs."""

    held: Mapping[str, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    moment: str = "exp_avg"

    def weight(self, name: str) -> torch.Tensor:
        if name in self.held:
            return self.held[name][self.moment].detach().to("cpu", torch.float64, copy=True)
        return torch.zeros_like(super().weight(name))


class _Moments(StreamGrowth):
    """The moments of one stream: they stand where the weights stand, divided by what these were multiplied with."""

    def __init__(self, growth: Growth, stream: Stream, depth: DepthRule, power: int) -> None:
        super().__init__(growth, stream, depth)
        self.power = power
        self.width = _MomentWidth(self.width, power)
        self.factor **= -power
        self.embedding_factor **= -power
        # A moment has no offset.
        self.stream = replace(stream, gain_offset=0.0)

    def _starts_at_zero(self, spec: Weight) -> bool:
        return True

    def _part(
        self, spec: Weight, weight: torch.Tensor, shape: Sequence[int], scale: torch.Tensor | None
    ) -> torch.Tensor:
        if spec.role != "unit_gain":
            return super()._part(spec, weight, shape, scale)
        units = super()._units(spec.axes[0], len(weight), shape[0])
        return units.placed(weight) * (units.size / len(units.positions)) ** (self.power / 2)

    def _longer(self, weight: torch.Tensor, axis: int, size: int, kind: str) -> torch.Tensor:
        if kind == "grid":
            return super()._longer(weight, axis, size, kind)
        rows = weight.movedim(axis, 0)
        return torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])]).movedim(0, axis)

    def _experts(
        self, spec: Weight, weight: torch.Tensor, shape: Sequence[int], scale: torch.Tensor | None
    ) -> torch.Tensor:
        inner, old = replace(spec, axes=spec.axes[1:]), len(weight)
        grown = [self._part(inner, weight[number % old], shape[1:], scale) for number in range(shape[0])]
        return torch.stack(grown) / (shape[0] // old) ** self.power

    def _units(self, axis: str, old: int, new: int) -> UnitRule:
        rule = super()._units(axis, old, new)
        # Copies of a unit share its gradient.
        copies = len(rule.sources) / max(1, len(rule.sources.unique()))
        rotation = _Turned(old, new, self.power) if rule.rotation else None
        scale = (rule.scale * copies) ** -self.power
        return replace(rule, scale=scale, fresh_scale=0.0, silent=False, mean=False, rotation=rotation)


class _MomentWidth:
    """What a width rule does to the gradient, or to its square.

    The channels of a padded stream keep theirs, gains have grown by √r. The k copies of a tiled one share what is
    written to them; what they are read with has the old one each.
    """

    how, epsilon_scale = "", 1.0

    def __init__(self, rule: Any, power: int) -> None:
        self.rule, self.power = rule, power
        self.copies = rule.copies if isinstance(rule, Tiled) else 1
        self.epsilon_scale = rule.epsilon_scale
        self.head_scale = rule.head_scale**-power

    def shift(self, weight: torch.Tensor) -> torch.Tensor:
        if isinstance(self.rule, Tiled):
            return torch.cat([weight] * self.copies) / self.copies**self.power
        return torch.cat([weight, weight.new_zeros(self.rule.extra, *weight.shape[1:])])

    embed = probe = scale = depthwise = first_shift = shift

    def write(self, weight: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        if isinstance(self.rule, Isometric):
            return _Turned(self.rule.old, self.rule.old + self.rule.extra, self.power)(weight)
        return self.shift(weight)

    def gain(self, weight: torch.Tensor) -> torch.Tensor:
        return self.shift(weight) / self.rule.epsilon_scale ** (self.power / 2)

    first_gain = gain

    def read(self, weight: torch.Tensor) -> torch.Tensor:
        if isinstance(self.rule, Tiled):
            return weight.repeat(1, self.copies)
        return torch.cat([weight, weight.new_zeros(len(weight), self.rule.extra)], dim=1)

    def raw_read(self, weight: torch.Tensor) -> torch.Tensor:
        if isinstance(self.rule, Isometric):
            return self.write(weight.T).T
        return self.read(weight)

    def read_mean(self, weight: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        return self.read(weight)

    def silent_read(self, units: int, scale: float) -> torch.Tensor:
        raise AssertionError("moments of new units are zero")


class _Turned:
    """The gradient of channels that turn, turns with them; of its square new channels get the mean."""

    def __init__(self, old: int, new: int, power: int) -> None:
        self.rule, self.power = Isometric(old, new, torch.Generator()), power

    def __call__(self, moment: torch.Tensor) -> torch.Tensor:
        if self.power == 1:
            return self.rule.write(moment)
        mean = moment.mean(0) * self.rule.epsilon_scale
        return torch.cat([moment, mean.expand(self.rule.extra, *mean.shape)])
