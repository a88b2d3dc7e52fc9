"""`copy`: the paper's leading-block copy with q, k and v kept apart (CoM-PT, arXiv 2604.12391, parameter space)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from hf_chain.growth.depth import interpolated, origins
from hf_chain.growth.fused import Layout
from hf_chain.growth.growth import Growth


def copy(growth: Growth) -> Iterator[tuple[str, torch.Tensor]]:
    """Every predecessor weight becomes the leading block of its successor; the rest stays randomly initialised.

    Depth: successor block l′ is predecessor block ⌊l′·L/L′⌋. Not function-preserving.
    """
    for name in growth.names:
        old, fresh = growth.weight(origin(growth, name)), growth.fresh(name)
        slot = growth.family.slot(name)
        if slot is None:
            yield name, old
            continue
        axes, stream = slot.weight.axes, slot.stream
        parts = zip(
            Layout(axes, stream.heads_of(growth.old), old.shape).split(old),
            (layout := Layout(axes, stream.heads_of(growth.new), fresh.shape)).split(fresh),
            strict=True,
        )
        yield name, layout.join([leading_block(*part) for part in parts])


def origin(growth: Growth, name: str) -> str:
    """The predecessor's weight for a weight of the successor, by name."""
    slot = growth.family.slot(name)
    if slot is None or slot.block is None:
        return name
    return slot.stream.in_block(name, origins(interpolated, slot.stream, growth.old, growth.new)[slot.block].block)


def leading_block(old: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    """`fresh` with its leading block replaced by `old`, which is at most as large along every axis."""
    grown = fresh.clone()
    grown[tuple(slice(size) for size in old.shape)] = old
    return grown
