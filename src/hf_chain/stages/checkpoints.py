"""Which training checkpoints are whole, so that a killed run goes on from the last of them."""

from __future__ import annotations

import json
import re
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
        processes (`int`): processes that train, and that wrote the checkpoints.
    """
    last = None
    for checkpoint in sorted(checkpoints_in(folder), key=_step, reverse=True):
        if not _is_complete(checkpoint, processes):
            shutil.rmtree(checkpoint, ignore_errors=True)
        elif last is None:
            last = checkpoint
    return last


def checkpoints_in(folder: Path) -> list[Path]:
    """The Trainer's checkpoints in `folder`, whole or not; what a user keeps beside them is none."""
    return [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_complete(checkpoint: Path, processes: int) -> bool:
    weights = list(checkpoint.glob("*.safetensors"))
    random_states = list(checkpoint.glob("rng_state*.pth"))
    # DeepSpeed keeps the optimizer in parts, one a process, and its own schedule beside it; without any the Trainer
    # would start a new one.
    optimizer = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt"]
    in_parts = list(checkpoint.rglob("*optim_states.pt"))
    if not weights or len(random_states) < processes:
        return False
    if not (len(in_parts) >= processes if in_parts else all(path.exists() for path in optimizer)):
        return False
    try:
        json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))
        for index in checkpoint.glob("*.safetensors.index.json"):
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if not shards <= {path.name for path in weights}:
                return False
        # Those of an adapter lie in a folder of their own.
        for path in checkpoint.rglob("*.safetensors"):
            # Opening compares the length of the file with its header.
            with safe_open(path, framework="pt"):
                pass
    except (OSError, ValueError, KeyError, SafetensorError):
        return False
    # Both kinds are zip archives, whose directory stands at the end.
    return all(zipfile.is_zipfile(path) for pattern in ("*.pt", "*.pth") for path in checkpoint.rglob(pattern))
