"""What suits the training of a language model; starts no torch, so that plans are quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_chain.errors import HfChainError

FEATURE_LOSS_WEIGHT = 1.0
"""Weight of the divergence from the teacher: a nat of it counts as one of the loss."""


def check_values(values: Mapping[str, Any]) -> None:
    """Checks values of `ChainConfig` as a language model takes them.

    Args:
        values (`Mapping`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    if (share := values.get("image_token_keep", 1)) != 1:
        raise HfChainError(f"image_token_keep={share} is for images, and task causal_lm has none: leave it out")
    if labels := values.get("label_names"):
        raise HfChainError(f"label_names is {labels!r}, and every token is a label: leave it out")
    if values.get("train_sampling_strategy") == "group_by_length":
        raise HfChainError("train_sampling_strategy is 'group_by_length', but all rows have one length")
