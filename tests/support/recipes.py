"""Recipes of seconds, and processes that run them the way a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hf_chain.methods.chain.recipe import Recipe

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = str(REPOSITORY / "examples" / "chain_pretrain.py")
GLOBAL_BATCH = 32


def tiny_values(output_dir: Path, members: int = 3, epochs: float = 1, **changes: Any) -> dict[str, Any]:
    """A recipe of at most three members on 256 scenes in float32; the last member has a larger embedding."""
    family = [
        {"name": "tiny", "vision": _tower(16, 1), "text": _tower(16, 1), "epochs": epochs},
        {"name": "small", "vision": _tower(32, 1), "text": _tower(32, 1), "epochs": epochs, "projection_dim": 24},
        {"name": "base", "vision": _tower(48, 2), "text": _tower(32, 2), "epochs": epochs, "projection_dim": 24},
    ]
    values = {
        "name": "tiny",
        "output_dir": str(output_dir),
        "model": {"image_size": 32, "patch_size": 16, "max_text_tokens": 40, "projection_dim": 16, "head_size": 16},
        "tokenizer": {"vocab_size": 600},
        "data": {
            "captions_per_image": 2,
            "scenes": {"train": 256, "validation": 32, "test": 32, "compositional": 32, "image_size": 32},
        },
        "members": family[:members],
        "training": {
            "per_device_train_batch_size": GLOBAL_BATCH,
            "learning_rate": 1e-3,
            "adam_epsilon": 1e-6,
            "logging_steps": 1,
            "save_steps": 3,
            "disable_tqdm": True,
        },
    }
    for path, value in changes.items():
        section: Any = values
        *parents, last = path.split("__")
        for key in parents:
            section = section.setdefault(key, {})
        section[last] = value
    return values


def tiny_recipe(output_dir: Path, members: int = 3, epochs: float = 1, **changes: Any) -> Recipe:
    """`tiny_values` as a `Recipe`; `training__save_steps=2` changes `training.save_steps`."""
    return Recipe.model_validate(tiny_values(output_dir, members, epochs, **changes))


def write_recipe(path: Path, values: dict[str, Any]) -> Path:
    """Writes `values` where the command line can read them."""
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    """The environment of a launched process: one thread, no network, waiting without spinning."""
    own = {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **own, "PATH": path}


def launch(
    launcher: Sequence[str], recipe: Path, *overrides: str, timeout: float = 540
) -> subprocess.CompletedProcess[str]:
    """Runs the example under `launcher` (such as `["accelerate", "launch"]`)."""
    command = [*launcher, EXAMPLE, "--config", str(recipe), *(("--set", *overrides) if overrides else ())]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout, check=False)


def accelerate_config(name: str) -> str:
    """An example configuration for `accelerate launch`; that of its engine is named from where it starts."""
    examples = Path("examples")
    if not examples.exists():
        examples.symlink_to(REPOSITORY / examples)
    return str(examples / "accelerate_configs" / f"{name}.yaml")


def _tower(width: int, depth: int) -> dict[str, int]:
    return {"hidden_size": width, "num_hidden_layers": depth}
