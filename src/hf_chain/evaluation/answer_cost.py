"""What asking a model costs, in multiply-accumulate operations."""

from __future__ import annotations

from typing import Any

from hf_chain.cost.grafted import adapter_macs
from hf_chain.cost.transformer import decoder_macs, encoder_macs


def answer_macs(model: Any, tokens: int, predicted: int) -> int:
    """Count the forward of a sequence of which the head reads the last `predicted` positions only."""
    head = decoder_macs(model.config, 1) - decoder_macs(model.config, 1, head=False)
    return decoder_macs(model.config, tokens, head=False) + predicted * head


def image_macs(model: Any, images: int) -> int:
    """Count the vision tower and the adapter on a number of images."""
    if not images:
        return 0
    return images * (encoder_macs(model.config) + adapter_macs(model.config))
