"""A training that goes on where an earlier attempt ended, ends with a checkpoint on SIGTERM, and is tracked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from accelerate.utils import broadcast_object_list, patch_environment
from safetensors import SafetensorError
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from hf_chain.engine import Engine
from hf_chain.errors import Terminated, reason
from hf_chain.files import MANIFEST_NAME, first_difference
from hf_chain.loaded_weights import first_not_finite
from hf_chain.runs.environment import WAIT_SECONDS

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


CHECKPOINTS_FOLDER = "checkpoints"
TRAINING_DEFAULTS: dict[str, Any] = {
    "save_total_limit": 2,
    "save_steps": 500,
    "logging_steps": 10,
    "ddp_timeout": WAIT_SECONDS,
}
"""Arguments of every stage, under those of the recipe."""
CURVE_POINTS = 20
"""A training logs so often at least, so that its curve has a shape."""


def logging_steps(steps: int) -> int:
    """Steps between two entries of the log where the recipe does not say it: few in a short training.

    Args:
        steps (`int`): of the whole training.
    """
    return max(1, min(TRAINING_DEFAULTS["logging_steps"], steps // CURVE_POINTS))


def train_or_resume(trainer: Trainer, main_process: bool) -> None:
    """Trains from the last whole checkpoint in the trainer's folder, or from the start; broken ones are removed.

    Args:
        trainer (`Trainer`): the trainer.
        main_process (`bool`): whether this process reads and removes checkpoints, for all.

    Raises:
        Terminated: when SIGTERM came, after a checkpoint.
    """
    folder = Path(trainer.args.output_dir)
    # Read once, as it may be large.
    found = [str(last_whole_checkpoint(folder) or "") if main_process else ""]
    broadcast_object_list(found)
    try:
        with ends_on_sigterm(trainer):
            trainer.train(resume_from_checkpoint=found[0] or None)
    except BaseException:
        # A full disk leaves a checkpoint cut short.
        if main_process:
            remove_unfinished(folder)
        raise


def remove_checkpoints(folder: Path, logs: Path) -> None:
    """Only once the result is recorded as saved: a kill before that would cost its training.

    Args:
        folder (`Path`): the trainer's; what is in it beside checkpoints, such as files of trackers, is kept.
        logs (`Path`): where that is moved to.
    """
    if not folder.is_dir():
        return
    for checkpoint in checkpoints_in(folder):
        shutil.rmtree(checkpoint, ignore_errors=True)
    keep_logs(folder, logs)
    with contextlib.suppress(OSError):
        # Only the last stage finds the folder above empty.
        folder.rmdir()
        folder.parent.rmdir()


LOGS_FOLDER = "logs"
TENSORBOARD_FOLDER = "TENSORBOARD_LOGGING_DIR"


@dataclass(frozen=True)
class TrackedTraining:
    """What trackers are told of the training of one member or stage.

    Args:
        run_dir (`Path`): the run's folder, which groups its members.
        name (`str`): name of the member or stage.
        training (`Mapping`): its `training` section.
        started (`str`): when the run began, so that an attempt after a kill goes on with the tracker's run.
    """

    run_dir: Path
    name: str
    training: Mapping[str, Any]
    started: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """The `training` section without `logging_dir`, which transformers dropped, and with names for trackers."""
        given = {field: value for field, value in self.training.items() if field != "logging_dir"}
        prefix = given.pop("run_name", None)
        return {"project": self.run_dir.name, "run_name": f"{prefix}-{self.name}" if prefix else self.name} | given

    @property
    def folder(self) -> Path:
        """`<run>/logs/<name>`, or `<run's name>/<name>` in the `logging_dir` of the recipe or of the environment."""
        chosen = self.training.get("logging_dir") or os.environ.get(TENSORBOARD_FOLDER)
        place = Path(chosen).expanduser() / self.run_dir.name if chosen else self.run_dir / LOGS_FOLDER
        return place / self.name

    @contextmanager
    def told(self) -> Iterator[None]:
        """Tells trackers what they read from the environment, for as long as a trainer is made and trains."""
        own = str(self.run_dir.absolute()), self.name, self.started
        values = {
            "WANDB_RUN_GROUP": self.run_dir.name,
            "WANDB_RUN_ID": hashlib.sha256("\n".join(own).encode()).hexdigest()[:16],
            "WANDB_RESUME": "allow",
        }
        values = {name: value for name, value in values.items() if name not in os.environ}
        values[TENSORBOARD_FOLDER] = str(self.folder)
        within_a_run = _wandb_run() is not None
        try:
            with patch_environment(**values):
                yield
        finally:
            if not within_a_run and (run := _wandb_run()) is not None:
                # The Trainer leaves it open, and the next member would be logged into it.
                run.finish()
                # Otherwise it would not look at the environment again.
                sys.modules["wandb"].teardown()


def keep_logs(trainer_folder: Path, logs: Path) -> None:
    """Moves what trackers left in a trainer's folder to that of the logs, beside what is there already.

    Args:
        trainer_folder (`Path`): a trainer's `output_dir`, without its checkpoints.
        logs (`Path`): `TrackedTraining.folder`.
    """
    for path in sorted(trainer_folder.iterdir()):
        logs.mkdir(parents=True, exist_ok=True)
        names = (f"{path.name}.{number}" if number else path.name for number in range(sys.maxsize))
        shutil.move(path, next(logs / name for name in names if not (logs / name).exists()))


def _wandb_run() -> Any:
    return getattr(sys.modules.get("wandb"), "run", None)


@contextmanager
def ends_on_sigterm(trainer: Trainer) -> Iterator[None]:
    """Around `trainer.train()`: SIGTERM in any process ends all of them after the step they are in, with a checkpoint.

    Raises:
        Terminated: after that checkpoint is on disk.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may say what signals do.
        yield
        return
    request = _Request(trainer)
    trainer.add_callback(request)
    before = signal.signal(signal.SIGTERM, request.receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        trainer.remove_callback(request)
    if request.granted:
        step, folder = trainer.state.global_step, trainer.args.output_dir
        raise Terminated(f"SIGTERM at step {step}: saved a checkpoint in {folder}; the same command goes on from it")
    if request.received:
        # After the last step, whose checkpoint is there already.
        os.kill(os.getpid(), signal.SIGTERM)


class _Request(TrainerCallback):
    """What the Trainer's own `enable_jit_checkpoint` lacks: asking the other processes, and at once."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.received, self.granted = trainer, False, False

    def receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if not Engine(self.trainer.accelerator).any(self.received):
            return
        self.granted = True
        control.should_save = True
        control.should_training_stop = True
