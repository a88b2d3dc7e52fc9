"""The two runs that are killed and damaged: a chain with every kind of file, and a whole graft, of seconds each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

RECIPE = "recipe.yaml"
METHODS = ("chain", "graft")
_TRAINING = {"logging_steps": 1, "disable_tqdm": True}


def write_run(folder: Path, method: str, processes: int = 1, **changes: Any) -> Path:
    """Writes the recipe of a chain or of a graft whose folders lie beside it, so that both can be copied together.

    Args:
        folder (`Path`): where; commands run in it.
        method (`str`): one of `METHODS`.
        processes (`int`): processes that share the global batch.
        changes: further values, at places with `__` for the dots.
    """
    from support.graft_recipes import tiny_graft_values
    from support.recipes import tiny_values, write_recipe

    folder.mkdir(parents=True)
    with chdir(folder):
        if method == "chain":
            values = tiny_values(Path("runs"), members=2, **_chain(processes), **changes)
        else:
            values = tiny_graft_values(Path(), **_graft(processes), **changes)
        return write_recipe(folder / RECIPE, values)


def _chain(processes: int) -> dict[str, Any]:
    """Augmented images, dropped tokens, a cached teacher with maps: all that draws random numbers or lies on disk."""
    return {
        "data__scenes": {"train": 64, "validation": 8, "test": 8, "compositional": 8, "image_size": 32},
        "data__augmentation": {"crop_scale": [0.6, 1.0], "horizontal_flip": True},
        "data__image_views": 2,
        "data__test_splits": [],
        "data__prompt_templates": "simple",
        "cache_teacher_features": True,
        "training": _TRAINING
        | {
            "save_steps": 2,
            "per_device_train_batch_size": 8 // processes,
            "learning_rate": 1e-3,
            "adam_epsilon": 1e-6,
            "image_token_keep": 0.5,
        },
    }


def _graft(processes: int) -> dict[str, Any]:
    batch = 8 // processes
    return {
        "training": _TRAINING
        | {"save_steps": 1, "per_device_train_batch_size": batch, "bf16": False, "lora": {"r": 2}},
        "target__new__training__per_device_train_batch_size": batch,
        "target__new__training__save_steps": 1,
        "stages__2__parts": {"adapter": 1e-3, "lora": 1e-3},
        "data__images__test_splits": [],
        "data__text__test_splits": [],
        "evaluation__splits": ["validation"],
    }


def run_folder(folder: Path) -> Path:
    """The run of the recipe in `folder`."""
    return folder / "runs" / "tiny"


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of every file with weights of the finished members and stages of the runs in `folder`."""
    found = sorted(path for path in folder.glob("runs/*/[0-9]*/**/*.safetensors"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def stop_after(event: str, member: str) -> Callable[[], None]:
    """Lets this process end, as if it had been killed, as soon as the ledger has an event."""

    def arm() -> None:
        from hf_chain.runs.ledger import Ledger

        append = Ledger.append

        def append_and_stop(ledger: Ledger, name: str, who: str | None = None, **fields: Any) -> None:
            append(ledger, name, who, **fields)
            if (name, who) == (event, member):
                os._exit(9)

        Ledger.append = append_and_stop  # type: ignore[method-assign]

    return arm


def stop_in_training(stage: str, step: int) -> Callable[[], None]:
    """Lets this process end as if it had been killed, in a step of the training of a member or stage."""

    def arm() -> None:
        from transformers import Trainer, TrainerCallback

        class Stop(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if state.global_step == step and args.output_dir.endswith(f"-{stage}"):
                    os._exit(9)

        train = Trainer.train

        def train_and_stop(trainer: Trainer, *args: Any, **options: Any) -> Any:
            trainer.add_callback(Stop())
            return train(trainer, *args, **options)

        Trainer.train = train_and_stop

    return arm
