"""Tiny language models, rows and trainers for the tests of their task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from hf_chain.trainer import ChainConfig, ChainTrainer

VOCABULARY, LENGTH, BATCH, STEPS = 48, 12, 8, 4
SIZES: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}


def tiny_language_model(family: str = "llama", seed: int = 0, **fields: Any) -> PreTrainedModel:
    """A random decoder for rows of `LENGTH` tokens."""
    marks = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    values = {"vocab_size": VOCABULARY, "max_position_embeddings": 16} | SIZES[family] | marks | fields
    config = CONFIG_MAPPING[family](**values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config)


def token_rows(count: int = 32) -> list[dict[str, torch.Tensor]]:
    """Random rows of `LENGTH` tokens."""
    generator = torch.Generator().manual_seed(0)
    return [{"input_ids": row} for row in torch.randint(1, VOCABULARY, (count, LENGTH), generator=generator)]


def language_trainer(
    folder: Path, model: PreTrainedModel | None = None, teacher: Any = None, **settings: Any
) -> ChainTrainer:
    """A trainer on random rows: batches of 8, on the CPU."""
    values = {"per_device_train_batch_size": BATCH, "max_steps": STEPS, "learning_rate": 1e-2, "logging_steps": 1}
    values |= {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "adam_epsilon": 1e-4} | settings
    given = {"train_dataset": token_rows(), "eval_dataset": token_rows(6)}
    args = ChainConfig(str(folder), task="causal_lm", **values)
    return ChainTrainer(tiny_language_model() if model is None else model, args, teacher, **given)
