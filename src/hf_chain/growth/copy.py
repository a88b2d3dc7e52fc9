"""Growth by copying, with what is new left random; not exact."""

from __future__ import annotations

import re
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


_PROJECTION = re.compile(r"\.[qkv]_proj\.(weight|bias)$")


def copy_fused(growth: Growth) -> Iterator[tuple[str, torch.Tensor]]:
    """As `copy`, but the predecessor's fused `[3D, D]` projection becomes the leading block of the `[3D′, D′]` one.

    When the width doubles, predecessor keys land among the successor's queries and its values stay random. It is here
    to be compared with, not to be used.
    """
    fresh = {name: growth.fresh(name) for name in growth.names if _PROJECTION.search(name)}
    for name, weight in copy(growth):
        if name not in fresh:
            yield name, weight
        elif ".q_proj." in name:
            names = _query_key_value(name)
            old = torch.cat([growth.weight(name) for name in _query_key_value(origin(growth, name))])
            whole = torch.cat([fresh[name] for name in names])
            yield from zip(names, leading_block(old, whole).chunk(3), strict=True)


def _query_key_value(query: str) -> list[str]:
    """The three names that `torch.nn.MultiheadAttention` fuses, in its order."""
    return [_PROJECTION.sub(rf".{letter}_proj.\1", query) for letter in "qkv"]
