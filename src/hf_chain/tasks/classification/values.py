"""What suits a training of classifiers; starts no torch, so that plans are quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_chain.errors import HfChainError
from hf_chain.tasks.image_values import check_image_values

FEATURE_LOSS_WEIGHT = 1.0
"""Weight of the Kullback-Leibler divergence from the teacher's classes, which is as large as a cross-entropy."""
SEVERAL = "multi_label_classification"
"""The `problem_type` of models whose images may have several classes."""
USED = ("label_smoothing_factor",)
"""Fields of `TrainingArguments` that most tasks do not follow."""


def check_values(values: Mapping[str, Any]) -> None:
    """Checks values of `ChainConfig` as a training of classifiers takes them.

    Args:
        values (`Mapping`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    if not 0 <= (share := values.get("label_smoothing_factor", 0)) < 1:
        raise HfChainError(f"label_smoothing_factor={share} must be at least 0 and below 1")
    check_image_values(values)


def other_classes(one: Any, other: Any) -> bool:
    """Whether the models of two configurations tell other classes; by their number where one of them has no names.

    So do two of which one alone takes classes to exclude each other.
    """
    if one.num_labels != other.num_labels or len({config.problem_type == SEVERAL for config in (one, other)}) == 2:
        return True
    unnamed = {f"LABEL_{number}" for number in range(one.num_labels)}
    named = all(set(config.id2label.values()) - unnamed for config in (one, other))
    return named and one.id2label != other.id2label
