"""`copy`: the paper's leading-block copy with q, k and v kept apart (CoM-PT, arXiv 2604.12391, parameter space)."""

from __future__ import annotations

import torch

from hf_chain.growth.depth import interpolated
from hf_chain.growth.growth import Growth, Weights


def copy(growth: Growth) -> Weights:
    """Every predecessor weight becomes the leading block of its successor; the rest stays randomly initialised.

    Depth: successor block l′ is predecessor block ⌊l′·L/L′⌋. Not function-preserving.
    """
    grown = dict(growth.fresh)
    for name, origin in copied_names(growth).items():
        grown[name] = leading_block(growth.weights[origin], growth.fresh[name])
    return grown


def copied_names(growth: Growth) -> dict[str, str]:
    """The predecessor's weight for every weight of the successor, by name."""
    names = {"logit_scale": "logit_scale"}
    for tower in growth.towers:
        old, new = (tower.config_of(config).num_hidden_layers for config in (growth.old, growth.new))
        origins = interpolated(old, new)
        for place in tower.places(new):
            names[place.name] = place.in_block(None if place.block is None else origins[place.block].block)
    return names


def leading_block(old: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    """`fresh` with its leading block replaced by `old`, which is at most as large along every axis."""
    grown = fresh.clone()
    grown[tuple(slice(size) for size in old.shape)] = old
    return grown
