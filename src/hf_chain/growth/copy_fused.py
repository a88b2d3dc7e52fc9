"""`copy_fused`: what CoM-PT's published code does, a leading-block copy of the *fused* attention projection."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

from hf_chain.growth.copy import copy, leading_block, origin
from hf_chain.growth.growth import Growth

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
