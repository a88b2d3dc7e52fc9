"""CLIP configurations of the paper's members, and small ones that a test can run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import CLIPConfig

PAPER_TOWERS = {
    "T": ((192, 12), (256, 12)),
    "C": ((256, 12), (320, 12)),
    "S": ((384, 12), (384, 12)),
    "M": ((512, 12), (448, 12)),
    "B": ((768, 12), (512, 12)),
    "BL": ((1024, 12), (768, 12)),
    "L": ((1024, 24), (768, 12)),
}


def _tower(width: int, layers: int, head: int) -> dict[str, int]:
    heads = width // head
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
    }


@pytest.fixture(scope="session")
def paper_config() -> Callable[..., CLIPConfig]:
    """Returns a function from a member's name to its configuration (CC3M recipe: 224 px, patch 16, 77 tokens)."""

    def build(name: str, projection_dim: int = 512) -> CLIPConfig:
        vision, text = PAPER_TOWERS[name]
        return CLIPConfig(
            projection_dim=projection_dim,
            vision_config=_tower(*vision, head=64) | {"image_size": 224, "patch_size": 16},
            text_config=_tower(*text, head=64) | {"vocab_size": 49_408, "max_position_embeddings": 77},
        )

    return build


@pytest.fixture(scope="session")
def small_config() -> CLIPConfig:
    """A model that trains in milliseconds; its MLPs are not the usual four times the width."""
    vision = _tower(96, 2, head=32) | {"intermediate_size": 320, "image_size": 64, "patch_size": 8}
    text = _tower(64, 3, head=32) | {"intermediate_size": 128, "vocab_size": 500, "max_position_embeddings": 24}
    special = {"bos_token_id": 498, "eos_token_id": 499}
    return CLIPConfig(projection_dim=48, vision_config=vision, text_config=text | special)
