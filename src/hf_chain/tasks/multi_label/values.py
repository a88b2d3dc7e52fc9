"""What suits a training of multi-label classifiers; starts no torch, so that plans are quick."""

from __future__ import annotations

from hf_chain.tasks.image_values import check_image_values as check_values

__all__ = ["FEATURE_LOSS_WEIGHT", "check_values"]

FEATURE_LOSS_WEIGHT = 1.0
"""Weight of the binary Kullback-Leibler divergence from the teacher, a mean over classes as the loss is."""
