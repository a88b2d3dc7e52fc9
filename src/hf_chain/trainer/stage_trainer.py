"""StageTrainer: what the trainers of all stages share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_chain.errors import HfChainError
from hf_chain.trainer.train_order import TrainOrder


class StageTrainer(Trainer):
    """A [`~transformers.Trainer`] that stops at a loss that is not finite and tells its data set the epoch.

    Args:
        kwargs: as for `Trainer`.

    Raises:
        HfChainError: when the loss stops being finite; no checkpoint is written then.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._last_loss: torch.Tensor | None = None
        self.train_order: TrainOrder | None = None
        self.add_callback(_EpochCallback(self))

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward pass on this process's part of the global batch."""
        self._last_loss = self._step(model, inputs, num_items_in_batch)
        return self._last_loss

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Resumed from the checkpoint of the last step, the Trainer would take one more where an epoch is not over.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    def _step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        return super().training_step(model, inputs, num_items_in_batch)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs, unless the loss is not finite."""
        for name in ("loss", "train_loss"):
            if name in logs:
                self._require_finite(logs[name])
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self._last_loss is not None:
            self._require_finite(self._mean_over_processes(self._last_loss.item()))
        super()._save_checkpoint(model, trial)

    def _mean_over_processes(self, value: float) -> float:
        return self.accelerator.reduce(torch.tensor(value, device=self.args.device), "mean").item()

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise HfChainError(
                f"The loss is {loss} at step {self.state.global_step}: lower the learning rate, lengthen the warm-up, "
                "or look for images and texts that are not finite"
            )


class _EpochCallback(TrainerCallback):
    """Tells data set and order their epoch: accelerate tells only samplers, and not those under a resumed loader."""

    def __init__(self, trainer: StageTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        epoch = int((state.epoch or 0.0) + 1e-6)
        if hasattr(self.trainer.train_dataset, "set_epoch"):
            self.trainer.train_dataset.set_epoch(epoch)
        if self.trainer.train_order is not None:
            self.trainer.train_order.epoch = epoch
