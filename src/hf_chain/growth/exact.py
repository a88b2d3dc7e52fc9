"""`exact`: the successor computes what its predecessor computes, and every new unit can learn."""

from __future__ import annotations

import torch

from hf_chain.growth.axes import Place, Tower
from hf_chain.growth.depth import DepthRule, Origin, inserted
from hf_chain.growth.growth import Growth, Weights, embedding_size
from hf_chain.growth.pad import Padded
from hf_chain.growth.pad_first_norm import PaddedBehindNorm
from hf_chain.growth.tile import Tiled
from hf_chain.growth.units import UnitRule, head_units, plain_units
from hf_chain.growth.width import WidthRule, normal, root_mean_square

# Relative size of the random part of the reads of the second and later new blocks in one gap. Equal blocks in a row
# get almost equal gradients and would learn the same; what they read does not matter while they write nothing.
BLOCK_NOISE = 0.5


def exact(growth: Growth) -> Weights:
    """Grow both towers by the exact rules, with new blocks that start as identity."""
    return grow_exactly_wide(growth, inserted)


def grow_exactly_wide(growth: Growth, depth: DepthRule) -> Weights:
    """Grow both towers by the exact width rules and a depth rule.

    Args:
        growth (`Growth`): the growth; the epsilons of its new configuration are set.
        depth (`Callable`): which predecessor block each successor block comes from.

    Returns:
        `dict[str, torch.Tensor]`: the successor's weights by name.
    """
    grown = {"logit_scale": growth.weights["logit_scale"]}
    for tower in growth.towers:
        grown |= _TowerGrowth(growth, tower).weights(depth)
    return grown


class _TowerGrowth:
    """The rules of one tower and the walk over its weights."""

    def __init__(self, growth: Growth, tower: Tower) -> None:
        self.growth = growth
        self.tower = tower
        self.old = tower.config_of(growth.old)
        self.new = tower.config_of(growth.new)
        self.width = self._width_rule()
        self.new.layer_norm_eps = self.old.layer_norm_eps * self.width.epsilon_scale

    def weights(self, depth: DepthRule) -> Weights:
        origins = depth(self.old.num_hidden_layers, self.new.num_hidden_layers)
        grown = {}
        for place in self.tower.places(self.new.num_hidden_layers):
            origin = None if place.block is None else origins[place.block]
            name = place.in_block(origin.block if origin else None)
            grown[place.name] = self._grow(place, self.growth.weights[name])
            if origin and origin.inserted:
                self._silence_block(grown[place.name], place, origin)
        return grown

    def _silence_block(self, weight: torch.Tensor, place: Place, origin: Origin) -> None:
        """Make a new block an identity, and tell it apart from other new blocks in the same gap."""
        if place.weight.role == "write":
            weight.zero_()
        elif place.weight.role == "read" and origin.inserted > 1:
            noise = normal(self.growth.generator, *weight.shape)
            weight += noise * root_mean_square(weight) * BLOCK_NOISE

    def _width_rule(self) -> WidthRule:
        old, new, generator = self.old.hidden_size, self.new.hidden_size, self.growth.generator
        first_norm = self.tower.first_norm
        if new == old or (first_norm and new % old == 0):
            return Tiled(old, new, generator)
        if first_norm:
            return PaddedBehindNorm(old, new, generator, self.growth.weights[f"{first_norm}.weight"])
        return Padded(old, new, generator)

    def _unit_rule(self, axis: str) -> UnitRule:
        if axis == "mlp":
            return plain_units(self.old.intermediate_size, self.new.intermediate_size)
        if axis == "embedding":
            return plain_units(embedding_size(self.growth.old), embedding_size(self.growth.new), silent=True)
        old_heads, new_heads = self.old.num_attention_heads, self.new.num_attention_heads
        return head_units(
            axis, old_heads, new_heads, self.old.hidden_size // old_heads, self.new.hidden_size // new_heads
        )

    def _grow(self, place: Place, weight: torch.Tensor) -> torch.Tensor:
        role, axes = place.weight.role, place.weight.axes
        if role == "read":
            return self._grow_read(weight, self._unit_rule(axes[0]))
        if role == "bias":
            units = self._unit_rule(axes[0])
            return weight.new_zeros(units.size).index_copy(0, units.old, weight * units.scale)
        first = bool(self.tower.first_norm) and place.name.startswith(f"{self.tower.first_norm}.")
        rule = getattr(self.width, f"first_{role}" if first else role)
        residual = axes.index("residual")
        grown = rule(weight.movedim(residual, 0)).movedim(0, residual)
        if place.weight.inner:
            units = self._unit_rule(place.weight.inner)
            grown = grown.new_zeros(len(grown), units.size).index_copy(1, units.old, grown)
        return grown.contiguous()

    def _grow_read(self, weight: torch.Tensor, units: UnitRule) -> torch.Tensor:
        width, scale = self.new.hidden_size, root_mean_square(weight)
        grown = weight.new_zeros(units.size, width)
        grown[units.old] = self.width.read(weight * units.scale)
        count = len(units.fresh)
        if units.silent:
            grown[units.fresh] = self.width.silent_read(count, scale)
        else:
            # The fan-in grew by 1/r, so the spread shrinks by √r, and a new unit is as loud as an old one.
            fresh = normal(self.growth.generator, count, width)
            grown[units.fresh] = fresh * scale * (self.old.hidden_size / width) ** 0.5
        return grown
