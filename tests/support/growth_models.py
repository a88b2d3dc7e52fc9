"""Tiny dual encoders for the growth tests."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from hf_chain.growth.growth import fresh_model

VOCABULARY = 40

# Fields of both towers: (text, vision) sizes of the predecessor that most tests grow.
TEXT = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 24}
VISION = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 32}


def tiny_config(
    text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, embedding: int = 12
) -> CLIPConfig:
    """A configuration whose towers differ from `TEXT` and `VISION` in the given fields."""
    words = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 7,
        "bos_token_id": VOCABULARY - 2,
        "eos_token_id": VOCABULARY - 1,
    }
    pixels = {"image_size": 8, "patch_size": 4}
    return CLIPConfig(
        text_config=words | TEXT | (text or {}),
        vision_config=pixels | VISION | (vision or {}),
        projection_dim=embedding,
    )


def trained_like(config: CLIPConfig, seed: int = 0, dtype: torch.dtype = torch.float64) -> CLIPModel:
    """A model whose gains, offsets and biases are as uneven as training leaves them (std 0.3)."""
    model = fresh_model(config, CLIPModel, seed, torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 0.3 if weight.dim() == 1 else 0.0 if name == "logit_scale" else 0.05
            weight += torch.randn(weight.shape, generator=generator, dtype=weight.dtype) * scale
    return model.to(dtype).eval()
