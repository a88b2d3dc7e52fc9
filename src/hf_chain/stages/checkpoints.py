"""Which training checkpoints are whole, so that a killed run goes on from the last of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

STATE_NAME = "trainer_state.json"


def last_complete_checkpoint(folder: Path, processes: int = 1) -> Path | None:
    """The newest whole checkpoint in `folder`; those cut short by a kill are removed.

    The Trainer writes its state file last, so a checkpoint is whole when that file can be read and every process has
    left its random state.

    Args:
        folder (`Path`): the Trainer's output folder.
        processes (`int`): processes that train.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    last = None
    for checkpoint in found:
        if not _is_complete(checkpoint, processes):
            shutil.rmtree(checkpoint, ignore_errors=True)
        elif last is None:
            last = checkpoint
    return last


def _is_complete(checkpoint: Path, processes: int) -> bool:
    try:
        json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return len(list(checkpoint.glob("rng_state*.pth"))) >= processes
