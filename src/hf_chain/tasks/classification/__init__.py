"""Classification: an image belongs to one of a fixed number of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.tasks.classification.paradigm import ClassificationParadigm
    from hf_chain.tasks.classification.task import ClassificationTask
    from hf_chain.tasks.classification.values import FEATURE_LOSS_WEIGHT, USED, check_values

_FILES = {
    "ClassificationParadigm": "paradigm",
    "ClassificationTask": "task",
    "FEATURE_LOSS_WEIGHT": "values",
    "USED": "values",
    "check_values": "values",
}
"""Public name -> its file, imported when first used: checking values starts no torch."""

__all__ = ["FEATURE_LOSS_WEIGHT", "USED", "ClassificationParadigm", "ClassificationTask", "check_values"]

__getattr__ = lazy_names(__name__, _FILES)
