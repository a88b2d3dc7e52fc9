"""CLIP's paradigm: images are told apart by their captions, over the global batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.tasks.contrastive.task import ContrastiveTask
    from hf_chain.tasks.contrastive.values import FEATURE_LOSS_WEIGHT, check_values

_FILES = {"ContrastiveTask": "task", "FEATURE_LOSS_WEIGHT": "values", "check_values": "values"}
"""Public name -> its file, imported when first used: checking values starts no torch."""

__all__ = ["FEATURE_LOSS_WEIGHT", "ContrastiveTask", "check_values"]

__getattr__ = lazy_names(__name__, _FILES)
