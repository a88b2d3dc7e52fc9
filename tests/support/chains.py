"""Chains in tests: what they ended with, and chains that were stopped on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hf_chain.methods.chain.recipe import ChainRecipe
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import FamilyRecord, read_family
from hf_chain.trainer import ChainTrainer
from support.stops import interrupt


def weights_of(family: FamilyRecord, member: str = "small") -> dict[str, torch.Tensor]:
    """The saved weights of a member."""
    return load_file(family.run_dir / family.member(member).folder / "model.safetensors")


def run_interrupted(recipe: ChainRecipe, *steps: int) -> FamilyRecord:
    """Runs a chain that is stopped at each of these steps of whichever member is trained, and goes on to its end."""
    for step in steps:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt(patch, ChainTrainer, step=step)
            run(recipe)
    return read_family(run(recipe))


def language_values(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of two Llamas, and a third that branches off the first."""
    values = {
        "name": "tiny",
        "task": "causal_lm",
        "family": "llama",
        "output_dir": str(folder),
        "tokenizer": {"vocab_size": 400},
        "data": {
            "source": "stories",
            "row_tokens": 32,
            "stories": {"train": 60, "validation": 8, "test": 4, "compositional": 4},
            "test_splits": [],
        },
        "model": {"head_size": 8, "tie_word_embeddings": True, "max_position_embeddings": 32},
        "members": [
            {"name": "tiny", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 0.2},
            {"name": "small", "hidden_size": 32, "num_hidden_layers": 2, "epochs": 0.1},
            {"name": "deep", "hidden_size": 16, "num_hidden_layers": 3, "epochs": 0.05, "grown_from": "tiny"},
        ],
        "training": {
            "per_device_train_batch_size": 16,
            "learning_rate": 1e-2,
            "adam_epsilon": 1e-6,
            "logging_steps": 1,
            "save_steps": 3,
            "disable_tqdm": True,
        },
    }
    return values | changes
