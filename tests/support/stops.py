"""Trainings that end before their end, as a kill would end them."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import Trainer, TrainerCallback


class Interruption(TrainerCallback):
    """Ends the process's training at a step, after whatever the Trainer saved there."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def interrupt(patch: pytest.MonkeyPatch, trainer_class: type[Trainer], step: int) -> None:
    """Lets every training from here on end at `step`."""
    start = trainer_class.train

    def train(trainer: Trainer, **kwargs: Any) -> Any:
        trainer.add_callback(Interruption(step))
        return start(trainer, **kwargs)

    patch.setattr(trainer_class, "train", train)
