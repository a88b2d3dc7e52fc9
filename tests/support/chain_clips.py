"""A tiny CLIP, and a batch for it."""

from __future__ import annotations

import torch
from transformers import CLIPConfig, CLIPModel


def tiny_clip(seed: int = 0) -> CLIPModel:
    """A random dual encoder for images of 16 × 16 pixels and captions of 8 tokens, in evaluation mode."""
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"vocab_size": 40, "max_position_embeddings": 8, "eos_token_id": 2, "bos_token_id": 1}
    vision = tower | {"image_size": 16, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()


def clip_inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    """As a stock processor makes it: a caption an image, the last one padded."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 40, (batch, 6), generator=random)
    mask = torch.ones_like(ids)
    ids[:, -1], ids[-1, 4:], mask[-1, 5:] = 2, 2, 0
    pixels = torch.randn(batch, 3, 16, 16, generator=random)
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels}
