"""Multi-label classification: an image belongs to any number of a fixed set of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.tasks.multi_label.paradigm import MultiLabelParadigm
    from hf_chain.tasks.multi_label.task import MultiLabelTask
    from hf_chain.tasks.multi_label.values import FEATURE_LOSS_WEIGHT, check_values

_FILES = {
    "FEATURE_LOSS_WEIGHT": "values",
    "MultiLabelParadigm": "paradigm",
    "MultiLabelTask": "task",
    "check_values": "values",
}
"""Public name -> its file, imported when first used: checking values starts no torch."""

__all__ = ["FEATURE_LOSS_WEIGHT", "MultiLabelParadigm", "MultiLabelTask", "check_values"]

__getattr__ = lazy_names(__name__, _FILES)
