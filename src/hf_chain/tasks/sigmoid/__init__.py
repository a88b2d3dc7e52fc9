"""SigLIP's paradigm: every image is judged with every caption of the global batch, pair by pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.tasks.sigmoid.task import SigmoidTask, start_logits
    from hf_chain.tasks.sigmoid.values import FEATURE_LOSS_WEIGHT, check_values

_FILES = {"FEATURE_LOSS_WEIGHT": "values", "SigmoidTask": "task", "check_values": "values", "start_logits": "task"}
"""Public name -> its file, imported when first used: checking values starts no torch."""

__all__ = ["FEATURE_LOSS_WEIGHT", "SigmoidTask", "check_values", "start_logits"]

__getattr__ = lazy_names(__name__, _FILES)
