"""Units between a read and a write: where the old heads, MLP units and embedding coordinates stand in the new axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from hf_chain.families import Heads
from hf_chain.growth.pad import Isometric
from hf_chain.growth.width import times


@dataclass(frozen=True)
class UnitRule:
    """How one inner axis grows.

    Args:
        size (`int`): The axis in the successor.
        positions (`torch.Tensor`): The new positions of old units.
        sources (`torch.Tensor`): The old unit at each of them; a key or value head may stand at several.
        zero (`torch.Tensor`): The new positions of units that must start at zero though they read the stream: the new
            dimensions of old keys, because the queries there are random.
        scale (`float`): What old units are multiplied with.
        fresh_scale (`float`): How loud new units are, in units of the old ones.
        silent (`bool`): New units are the model's output, so they must be zero in value, not in weight.
        mean (`bool`): New units start as the mean of the old ones.
        rotation (`Callable`, *optional*): What makes all new units of the old ones, where lengths have to stay.
    """

    size: int
    positions: torch.Tensor
    sources: torch.Tensor
    zero: torch.Tensor
    scale: float = 1.0
    fresh_scale: float = 1.0
    silent: bool = False
    mean: bool = False
    rotation: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def fresh(self) -> torch.Tensor:
        """The new positions of units that start random."""
        taken = torch.zeros(self.size, dtype=torch.bool)
        taken[self.positions] = True
        taken[self.zero] = True
        return (~taken).nonzero().flatten()

    @cached_property
    def leads(self) -> bool:
        """Whether old units stand first, in their order."""
        first = torch.arange(len(self.positions))
        return torch.equal(self.positions, first) and torch.equal(self.sources, first)

    def placed(self, weight: torch.Tensor, axis: int = 0) -> torch.Tensor:
        """A weight with its old units at their new positions and zeros elsewhere."""
        if self.leads and self.size == weight.shape[axis]:
            return weight
        shape = list(weight.shape)
        shape[axis] = self.size
        grown = weight.new_zeros(shape)
        if self.leads:
            grown.narrow(axis, 0, weight.shape[axis]).copy_(weight)
            return grown
        return grown.index_copy_(axis, self.positions, weight.index_select(axis, self.sources))

    def filled(self, weight: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        """The same along the first axis, with `fresh` where units start random."""
        if self.leads and not len(self.zero):
            return torch.cat([weight, fresh])
        grown = self.placed(weight)
        grown[self.fresh] = fresh
        return grown

    def bias(self, weight: torch.Tensor) -> torch.Tensor:
        """The bias of the units: that of new ones is zero, or the mean."""
        if self.rotation:
            return self.rotation(weight)
        grown = self.placed(times(weight, self.scale))
        if self.mean:
            grown[self.fresh] = weight.mean()
        return grown


def plain_units(axis: str, old: int, new: int) -> UnitRule:
    """Old units lead, new ones follow.

    Args:
        axis (`str`): `embedding` and `pooled` are outputs that start at zero, `vocab` starts as the mean, `rotated` is
            compared with a stream that grows by [`Isometric`]; new units of any other name are random.
        old (`int`): Units of the predecessor.
        new (`int`): Units of the successor.
    """
    positions = torch.arange(old)
    if axis == "rotated" and new > old:
        rotation = Isometric(old, new, torch.Generator()).write
        return UnitRule(new, positions, positions, positions[:0], rotation=rotation)
    return UnitRule(
        new,
        positions,
        positions,
        positions[:0],
        silent=axis in ("embedding", "pooled"),
        mean=axis in ("vocab", "label"),
    )


def expert_units(old: int, new: int) -> UnitRule:
    """Every expert is copied as often as fits: a router that takes as many more of them gives what it gave."""
    return UnitRule(new, torch.arange(new), torch.arange(new) % old, torch.arange(0))


def head_units(axis: str, old: Heads, new: Heads) -> UnitRule:
    """Old heads become the leading dimensions of heads of their own; whole new heads follow.

    Query head i of group j reads key–value head j. Where groups get larger, new query heads join them. Where they get
    smaller, a group becomes several with the same key–value head, whose copies other query heads read and which part
    in training. Attention divides by the square root of the head size, so a larger head multiplies its queries by
    √(s′/s).

    Args:
        axis (`str`): `query`, `context`, `key`, `value` or `head`, one unit a query head.
        old (`Heads`): Heads of the predecessor.
        new (`Heads`): Heads of the successor.
    """
    group, new_group = old.number // old.key_value, new.number // new.key_value
    copies = -(-group // new_group)
    if axis in ("key", "value"):
        number, heads = new.key_value, torch.arange(old.key_value * copies)
        sources = heads // copies
    else:
        number, sources = new.number, torch.arange(old.number)
        inside = sources % group
        heads = (sources // group * copies + inside // new_group) * new_group + inside % new_group
    if axis == "head":
        return UnitRule(number, heads, sources, torch.arange(0))
    positions = torch.arange(number * new.size).view(number, new.size)
    zero = positions[heads, old.size :].flatten() if axis == "key" else torch.arange(0)
    scale = (new.size / old.size) ** 0.5 if axis == "query" else 1.0
    of_source = torch.arange(old.size) + sources[:, None] * old.size
    return UnitRule(number * new.size, positions[heads, : old.size].flatten(), of_source.flatten(), zero, scale)
