"""What suits a training on masked images; starts no torch, so that plans are quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_chain.tasks.image_values import check_image_values

FEATURE_LOSS_WEIGHT = 1.0
"""Weight of the squared distance of unit tokens, 2 (1 - cos). CoM-PT's 500 makes 500 · 2/512 (1 - cos) of a tower, 2 %
less. Source: CoM-PT (arXiv 2604.12391)."""


def check_values(values: Mapping[str, Any]) -> None:
    """Checks values of `ChainConfig` as a training on masked images takes them.

    Args:
        values (`Mapping`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    check_image_values(values)
