"""Masked images: an encoder sees a few patches of an image, a small decoder draws the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.lazy import lazy_names

if TYPE_CHECKING:
    from hf_chain.tasks.masked_image.paradigm import MaskedImageParadigm
    from hf_chain.tasks.masked_image.task import MaskedImageTask
    from hf_chain.tasks.masked_image.values import FEATURE_LOSS_WEIGHT, check_values

_FILES = {
    "FEATURE_LOSS_WEIGHT": "values",
    "MaskedImageParadigm": "paradigm",
    "MaskedImageTask": "task",
    "check_values": "values",
}
"""Public name -> its file, imported when first used: checking values starts no torch."""

__all__ = ["FEATURE_LOSS_WEIGHT", "MaskedImageParadigm", "MaskedImageTask", "check_values"]

__getattr__ = lazy_names(__name__, _FILES)
