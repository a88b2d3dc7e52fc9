"""What suits a contrastive training; starts no torch, so that plans are quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_chain.errors import HfChainError

FEATURE_LOSS_WEIGHT = 500.0
"""Weight α of the feature loss at embedding size 512. Source: CoM-PT (arXiv 2604.12391)."""
MIN_GLOBAL_BATCH = 2
"""A contrastive loss tells each image from the others."""


def check_global_batch(where: str, batch: int) -> None:
    """Refuses a global batch of one image, in which a contrastive loss has nothing to tell it from.

    Args:
        where (`str`): the member, or nothing.
        batch (`int`): images of all processes in a step.

    Raises:
        HfChainError: naming the batch.
    """
    if batch < MIN_GLOBAL_BATCH:
        raise HfChainError(
            f"{where}the global batch is {batch} image, which has no other to be told from: set "
            f"per_device_train_batch_size to {MIN_GLOBAL_BATCH} or more"
        )


def check_values(values: Mapping[str, Any]) -> None:
    """Checks values of `ChainConfig` as a contrastive loss and a model with two towers take them.

    Args:
        values (`Mapping`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    if (steps := values.get("gradient_accumulation_steps", 1)) != 1:
        raise HfChainError(
            f"gradient_accumulation_steps={steps} would lose the negatives of a contrastive loss: raise "
            "per_device_train_batch_size instead and set micro_batch_size to what fits"
        )
    if not 0 < (share := values.get("image_token_keep", 1)) <= 1:
        raise HfChainError(f"image_token_keep={share} must be above 0 and at most 1")
    if not 0 <= (tail := values.get("unmasked_tail", 0)) <= 1:
        raise HfChainError(f"unmasked_tail={tail} must be between 0 and 1")
    if labels := values.get("label_names"):
        raise HfChainError(f"label_names is {labels!r}, and the loss is of pairs: leave it out")
    if noise := values.get("neftune_noise_alpha"):
        raise HfChainError(f"neftune_noise_alpha is {noise}, but CLIP has no one embedding for it; leave it out")
    if values.get("train_sampling_strategy") == "group_by_length":
        raise HfChainError("train_sampling_strategy is 'group_by_length', but all captions are padded to one length")
