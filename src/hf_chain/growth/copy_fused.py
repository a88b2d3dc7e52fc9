"""`copy_fused`: what CoM-PT's published code does, a leading-block copy of the *fused* attention projection."""

from __future__ import annotations

import re

import torch

from hf_chain.growth.copy import copied_names, copy, leading_block
from hf_chain.growth.growth import Growth, Weights

_QUERY = re.compile(r"\.q_proj\.(weight|bias)$")


def copy_fused(growth: Growth) -> Weights:
    """As `copy`, but the predecessor's fused `[3D, D]` projection becomes the leading block of the `[3D′, D′]` one.

    When the width doubles, predecessor keys land among the successor's queries and its values stay random. It is here
    to be compared with, not to be used.
    """
    grown = copy(growth)
    origins = copied_names(growth)
    for query in filter(_QUERY.search, origins):
        names = _query_key_value(query)
        old = torch.cat([growth.weights[name] for name in _query_key_value(origins[query])])
        fresh = torch.cat([growth.fresh[name] for name in names])
        grown |= zip(names, leading_block(old, fresh).chunk(3), strict=True)
    return grown


def _query_key_value(query: str) -> list[str]:
    """The three names that `torch.nn.MultiheadAttention` fuses, in its order."""
    return [_QUERY.sub(rf".{letter}_proj.\1", query) for letter in "qkv"]
