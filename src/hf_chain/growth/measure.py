"""How far a successor's embeddings are from its predecessor's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize

from hf_chain.growth.axes import CLIP_TEXT, CLIP_VISION

if TYPE_CHECKING:
    from transformers import CLIPModel


def embedding_error(predecessor: CLIPModel, successor: CLIPModel, seed: int = 0, batch: int = 8) -> dict[str, float]:
    """Relative error of the L2-normalised embeddings on random images and texts.

    Args:
        predecessor (`CLIPModel`): the smaller model.
        successor (`CLIPModel`): the larger one; of a larger embedding the leading coordinates are compared.
        seed (`int`, *optional*, defaults to 0): the seed of the inputs.
        batch (`int`, *optional*, defaults to 8): the number of images and of texts.

    Returns:
        `dict[str, float]`: `image` and `text`, norm of the difference over norm of the predecessor's embeddings.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = _random_images(predecessor, generator, batch)
    tokens = _random_texts(predecessor, generator, batch)
    expected, actual = (_embeddings(model, pixels, tokens) for model in (predecessor, successor))
    return {kind: _relative_error(expected[kind], actual[kind]) for kind in expected}


def _relative_error(expected: torch.Tensor, actual: torch.Tensor) -> float:
    difference = actual[:, : expected.shape[1]] - expected
    return (difference.norm() / expected.norm()).item()


@torch.no_grad()
def _embeddings(model: CLIPModel, pixels: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    training = model.training
    model.eval()
    try:
        image = model.get_image_features(pixel_values=pixels.to(model.device, model.dtype)).pooler_output
        text = model.get_text_features(input_ids=tokens.to(model.device)).pooler_output
    finally:
        model.train(training)
    return {kind: normalize(value.cpu().double(), dim=-1) for kind, value in (("image", image), ("text", text))}


def _random_images(model: CLIPModel, generator: torch.Generator, batch: int) -> torch.Tensor:
    config = CLIP_VISION.config_of(model.config)
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(batch, config.num_channels, height, width, generator=generator, dtype=torch.float64)


def _random_texts(model: CLIPModel, generator: torch.Generator, batch: int) -> torch.Tensor:
    """Random token ids `[batch, length]` that end in the token whose place is pooled."""
    config = CLIP_TEXT.config_of(model.config)
    tokens = torch.randint(config.vocab_size, (batch, config.max_position_embeddings), generator=generator)
    tokens[:, -1] = config.eos_token_id
    return tokens
