"""`stack`: exact width, and depth by repeating the whole stack of blocks (StackBERT, G_stack); exact only in width."""

from __future__ import annotations

from hf_chain.growth.depth import stacked
from hf_chain.growth.exact import grow_exactly_wide
from hf_chain.growth.growth import Growth, Weights


def stack(growth: Growth) -> Weights:
    """Grow the width exactly; successor block l′ is predecessor block l′ mod L."""
    return grow_exactly_wide(growth, stacked)
