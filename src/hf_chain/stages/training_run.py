"""A training that goes on where an earlier attempt ended."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from transformers import Trainer

from hf_chain.stages.checkpoints import last_complete_checkpoint
from hf_chain.stages.environment import WAIT_SECONDS

CHECKPOINTS_FOLDER = "checkpoints"
TRAINING_DEFAULTS: dict[str, Any] = {
    "save_total_limit": 2,
    "save_steps": 500,
    "logging_steps": 10,
    "ddp_timeout": WAIT_SECONDS,
}
"""Arguments of every stage, under those of the recipe."""


def train_or_resume(trainer: Trainer, main_process: bool) -> None:
    """Trains from the last whole checkpoint in the trainer's folder, or from the start; broken ones are removed.

    Args:
        trainer (`Trainer`): the trainer.
        main_process (`bool`): whether this process removes checkpoints.
    """
    folder, processes = Path(trainer.args.output_dir), trainer.args.world_size
    if main_process:
        last_complete_checkpoint(folder, processes)
    trainer.accelerator.wait_for_everyone()
    checkpoint = last_complete_checkpoint(folder, processes)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except BaseException:
        # A full disk leaves a checkpoint cut short.
        if main_process:
            last_complete_checkpoint(folder, processes)
        raise


def remove_checkpoints(folder: Path) -> None:
    """Only once the result is recorded as saved: a kill before that would cost its training."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        # Only the last stage finds the folder above empty.
        folder.parent.rmdir()
