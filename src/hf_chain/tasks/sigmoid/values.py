"""What suits a training with the sigmoid loss; starts no torch, so that plans are quick."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hf_chain.errors import HfChainError
from hf_chain.tasks.contrastive import values as contrastive

FEATURE_LOSS_WEIGHT = contrastive.FEATURE_LOSS_WEIGHT
"""As for the contrastive loss: a distance of embeddings. Source: CoM-PT (arXiv 2604.12391)."""

FIRST_LOGITS = math.log(10), -10.0
"""Logarithm of the logit scale, and the logit bias, of a model that is trained from scratch (SigLIP, section 3.2)."""


def check_values(values: Mapping[str, Any]) -> None:
    """Checks values of `ChainConfig` as a sigmoid loss and a SigLIP take them.

    Args:
        values (`Mapping`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    contrastive.check_values(values)
    if (share := values.get("image_token_keep", 1)) != 1:
        raise HfChainError(f"image_token_keep is {share}, and a SigLIP reads all patches: leave it out")
