"""Training on a random part of the image tokens.

Source: FLIP (arXiv 2212.00794). The student and a live teacher see the same tokens of an image, so that the feature
loss compares like with like and the teacher becomes cheaper as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import CLIPVisionModel

from hf_chain.cost import kept_patches


def draw_kept_tokens(images: int, patches: int, keep: float, generator: torch.Generator) -> torch.Tensor:
    """Positions of the tokens to keep: the class token and a random share of the patches, in ascending order.

    Args:
        images (`int`): images B of the batch.
        patches (`int`): patch tokens of an image.
        keep (`float`): share of them to keep.
        generator (`torch.Generator`): where the random numbers come from.

    Returns:
        `torch.Tensor`: shape `[B, 1 + kept]`, int64, on the generator's device.
    """
    chosen = (
        torch.rand(images, patches, generator=generator, device=generator.device)
        .topk(kept_patches(patches, keep), dim=1)
        .indices
    )
    return torch.cat([chosen.new_zeros(images, 1), chosen.sort(dim=1).values + 1], dim=1)


@contextmanager
def dropped_tokens(vision_model: CLIPVisionModel, kept: torch.Tensor | None) -> Iterator[None]:
    """Within the block the image tower sees only the tokens `kept`, shape `[B, 1 + kept]`; all of them for `None`."""
    if kept is None:
        yield
        return

    def keep(module: nn.Module, inputs: Any, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))

    handle = vision_model.embeddings.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()
