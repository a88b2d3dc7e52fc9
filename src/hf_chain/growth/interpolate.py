"""`interpolate`: exact width, and depth by repeating every block in place; exact only in width."""

from __future__ import annotations

from hf_chain.growth.depth import interpolated
from hf_chain.growth.exact import grow_exactly_wide
from hf_chain.growth.growth import Growth, Weights


def interpolate(growth: Growth) -> Weights:
    """Grow the width exactly; successor block l′ is predecessor block ⌊l′·L/L′⌋."""
    return grow_exactly_wide(growth, interpolated)
