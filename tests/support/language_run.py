"""A tiny language model with a teacher, and its training as a launcher starts it: `torchrun … language_run.py FOLDER
SETTINGS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

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


def run(folder: Path, **settings: Any) -> None:
    """Trains a model with tied embeddings and a teacher of another family, and saves it."""
    model = tiny_language_model(tie_word_embeddings=True)
    teacher = tiny_language_model("gpt2", 1)
    trainer = language_trainer(folder, model, teacher, train_sampling_strategy="sequential", **settings)
    trainer.train()
    trainer.save_model(str(folder / "end"))
    if trainer.args.should_save:
        (folder / "log.json").write_text(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    run(Path(sys.argv[1]), **json.loads(sys.argv[2]))
