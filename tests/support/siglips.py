"""Tiny SigLIPs and trainers of them, on the pairs of `support.pairs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import SiglipConfig, SiglipModel

from hf_chain.tasks.sigmoid import start_logits
from hf_chain.trainer import ChainTrainer
from support.pairs import CONTEXT, EOS, IMAGE, VOCABULARY, tiny_trainer

MARKS = {"bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": EOS}


def siglip(width: int = 16, layers: int = 1, seed: int = 0) -> SiglipModel:
    """A random SigLIP with heads of 8 channels."""
    tower = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    tower |= {"num_attention_heads": width // 8}
    config = SiglipConfig(
        text_config=tower | {"vocab_size": VOCABULARY, "max_position_embeddings": CONTEXT} | MARKS,
        vision_config=tower | {"image_size": IMAGE, "patch_size": 8},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return start_logits(SiglipModel(config))


def trainer(folder: Path, model: Any = None, teacher: Any = None, **settings: Any) -> ChainTrainer:
    """A trainer on random pairs: batches of 8, on the CPU."""
    return tiny_trainer(folder, teacher, model or siglip(), **{"task": "sigmoid"} | settings)
