"""`random`: a fresh initialisation that inherits nothing, the control of every comparison."""

from __future__ import annotations

from hf_chain.growth.growth import Growth, Weights


def random(growth: Growth) -> Weights:
    """The successor as the model's own initialisation makes it."""
    return growth.fresh
