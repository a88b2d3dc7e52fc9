"""Which training checkpoints are whole, so that a killed run goes on from the last of them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging

from hf_chain.errors import reason
from hf_chain.files import MANIFEST_NAME, first_difference
from hf_chain.finite import first_not_finite

logger = logging.get_logger(__name__)


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that is as its manifest says and has finite weights only.

    Newer ones are removed: those that a kill cut short, as their manifest is written last, and those that were damaged
    afterwards, which are warned about. Older ones are not read.

    Args:
        folder (`Path`): the Trainer's output folder.

    Raises:
        HfChainError: when `HF_CHAIN_VERIFY` is neither `sha256` nor `size`.
    """
    for checkpoint in sorted(checkpoints_in(folder), key=_step, reverse=True):
        if (fault := _fault(checkpoint)) is None:
            return checkpoint
        if (checkpoint / MANIFEST_NAME).exists():
            logger.warning(f"{checkpoint} is left out ({fault}): the training goes on from an earlier one, if any")
        shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def remove_unfinished(folder: Path) -> None:
    """Removes the checkpoints that were not written to their end, as when a disk is full."""
    for checkpoint in checkpoints_in(folder):
        if not (checkpoint / MANIFEST_NAME).exists():
            shutil.rmtree(checkpoint, ignore_errors=True)


def checkpoints_in(folder: Path) -> list[Path]:
    """The Trainer's checkpoints in `folder`, whole or not; what a user keeps beside them is none."""
    return [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]


def _fault(checkpoint: Path) -> str | None:
    if difference := first_difference(checkpoint):
        return difference
    try:
        name = first_not_finite(checkpoint)
    except SafetensorError as error:
        return reason(error)
    return f"{name} is not finite" if name else None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
