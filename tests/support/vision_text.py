"""Tiny `VisionTextDualEncoder`s and trainers of them, on the pairs of `support.pairs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from hf_chain.trainer import ChainTrainer
from support.pairs import CONTEXT, EOS, IMAGE, VOCABULARY, tiny_trainer

MARKS = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": 0}
STAGED = {"patch_size": 4, "window_size": 2}


def two_towers(
    width: int = 16, layers: int = 1, vision: str = "vit", text: str = "clip_text_model", text_width: int = 16
) -> VisionTextDualEncoderModel:
    """A random one with heads of 8 channels; a Swin has two stages, the second twice as wide."""
    stages = {"embed_dim": width, "depths": [2 * layers, 2], "num_heads": [width // 8, width // 4]}
    plain = _tower(width, layers) | {"patch_size": 8}
    plain |= {"pooler_output_size": width} if vision in ("vit", "deit") else {}
    if vision == "dinov2":
        plain |= {"mlp_ratio": 2}
        del plain["intermediate_size"]
    config = VisionTextDualEncoderConfig(
        text_config=_tower(text_width, 1)
        | ({} if text == "clip_text_model" else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
        # A RoBERTa counts from the place behind the padding token's.
        | {"model_type": text, "vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT + (text == "roberta")}
        | MARKS,
        vision_config=(stages | STAGED if "swin" in vision else plain) | {"model_type": vision, "image_size": IMAGE},
        projection_dim=12,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VisionTextDualEncoderModel(config)


def _tower(width: int, layers: int) -> dict[str, int]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers}
    return sizes | {"intermediate_size": 2 * width, "num_attention_heads": width // 8}


def trainer(folder: Path, model: Any = None, teacher: Any = None, **settings: Any) -> ChainTrainer:
    """A trainer on random pairs: batches of 8, on the CPU."""
    return tiny_trainer(folder, teacher, model or two_towers(), **settings)
