"""Units between a read and a write: where the old heads, MLP units and embedding coordinates stand in the new axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class UnitRule:
    """How one inner axis grows.

    Args:
        size (`int`): the axis in the successor.
        old (`torch.Tensor`): the new places of the old units, in their order.
        zero (`torch.Tensor`): the new places of units that must start at zero though they read the stream: the new
            dimensions of old keys, because the queries there are random.
        scale (`float`): what old units are multiplied with.
        silent (`bool`): new units are the model's output, so they must be zero in value, not in weight.
    """

    size: int
    old: torch.Tensor
    zero: torch.Tensor
    scale: float = 1.0
    silent: bool = False

    @property
    def fresh(self) -> torch.Tensor:
        """The new places of units that start random."""
        taken = torch.zeros(self.size, dtype=torch.bool)
        taken[self.old] = True
        taken[self.zero] = True
        return (~taken).nonzero().flatten()


def plain_units(old: int, new: int, silent: bool = False) -> UnitRule:
    """Old units lead, new ones follow: MLP units and embedding coordinates."""
    return UnitRule(new, torch.arange(old), torch.arange(0), silent=silent)


def head_units(axis: str, old_heads: int, new_heads: int, old_size: int, new_size: int) -> UnitRule:
    """Old head h becomes the leading dimensions of head h; whole new heads follow.

    Attention divides by the square root of the head size, so a larger head multiplies its queries by √(s′/s).
    """
    places = torch.arange(new_heads * new_size).view(new_heads, new_size)
    zero = places[:old_heads, old_size:].flatten() if axis == "key" else torch.arange(0)
    scale = (new_size / old_size) ** 0.5 if axis == "query" else 1.0
    return UnitRule(new_heads * new_size, places[:old_heads, :old_size].flatten(), zero, scale)
