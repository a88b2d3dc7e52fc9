"""What tasks of images alone do not follow; starts no torch, so that plans are quick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_chain.errors import HfChainError

_USUAL = {
    "image_token_keep": (1, "all patches are read"),
    "identical_captions_positive": (True, "there are no captions"),
    "neftune_noise_alpha": (None, "there is no embedding of words for it"),
}
"""Fields that would do nothing: their default, and why."""


def check_image_values(values: Mapping[str, Any]) -> None:
    """Refuses fields of `ChainConfig` that would do nothing in a training on images alone.

    Args:
        values (`Mapping`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and why.
    """
    for name, (usual, why) in _USUAL.items():
        if (value := values.get(name, usual)) != usual:
            raise HfChainError(f"{name} is {value!r} and would do nothing: {why}; leave it out")
    if (names := values.get("label_names")) not in (None, [], ["labels"]):
        raise HfChainError(f"label_names is {names!r}, and the task reads labels: leave it out")
    if values.get("train_sampling_strategy") == "group_by_length":
        raise HfChainError("train_sampling_strategy is 'group_by_length', but all images have one size")
