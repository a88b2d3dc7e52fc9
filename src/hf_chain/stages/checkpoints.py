"""Which training checkpoints are whole, so that a killed run goes on from the last of them."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

STATE_NAME = "trainer_state.json"


def last_complete_checkpoint(folder: Path, processes: int = 1) -> Path | None:
    """The newest whole checkpoint in `folder`; those cut short by a kill are removed.

    A process writes its random state last and the main one the Trainer's state after that, so a checkpoint is whole
    when all of these are there. What is there is checked as well, as disks fill up and files are copied in part.

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
    weights = list(checkpoint.glob("*.safetensors"))
    random_states = list(checkpoint.glob("rng_state*.pth"))
    # DeepSpeed keeps the optimizer in parts, one a process; without any the Trainer would start a new one.
    optimizer = list(checkpoint.glob("optimizer*")) * processes or list(checkpoint.rglob("*optim_states.pt"))
    if not weights or len(random_states) < processes or len(optimizer) < processes:
        return False
    try:
        json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))
        for path in weights:
            # Opening compares the length of the file with its header.
            with safe_open(path, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    # Both kinds are zip archives, whose directory stands at the end.
    return all(zipfile.is_zipfile(path) for pattern in ("*.pt", "*.pth") for path in checkpoint.rglob(pattern))
