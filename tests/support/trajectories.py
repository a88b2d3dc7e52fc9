"""Trajectories of a known shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_chain.grafting.trajectory import Trajectory


def made_trajectory(distances: Sequence[float], **fields: Any) -> Trajectory:
    """A trajectory with the given prediction distance of each of L + 1 states, and layers of equal size.

    Args:
        distances (`Sequence[float]`): of every state; the vocabulary KL is twice as large.
        **fields: Fields that differ.
    """
    layers, values = len(distances) - 1, [float(value) for value in distances]
    divergences = [2 * value for value in values]
    content: dict[str, Any] = {
        "prediction_distance": values,
        "vocabulary_kl": divergences,
        "block_influence": [0.1] * layers,
        "prediction_distance_quartiles": [[0.8 * v for v in values], [1.2 * v for v in values]],
        "vocabulary_kl_quartiles": [[0.8 * v for v in divergences], [1.2 * v for v in divergences]],
        "samples": 300,
        "skipped_samples": 2,
        "tokens": 12_000,
        "macs": 10**12,
        "layer_parameters": [100] * layers,
        "other_parameters": 500,
        "layer_macs": [1_000] * layers,
        "other_macs": 2_000,
        "model": "some/target",
    }
    return Trajectory(**content | fields)


def plateau_and_fall(layers: int, knot: int, height: float = 6.0) -> list[float]:
    """Distances that stay at `height` up to state `knot` and then fall straight to 0 at the end."""
    return [height * min(1.0, (layers - state) / (layers - knot)) for state in range(layers + 1)]
