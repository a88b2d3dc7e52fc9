"""StageTrainer: what the trainers of all stages share."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy, rotate_checkpoints

from hf_chain.engine import Engine, is_sharded
from hf_chain.errors import HfChainError
from hf_chain.files import write_manifest
from hf_chain.loaded_weights import first_not_finite_of, names_as_in_memory, require_finite


class StageTrainer(Trainer):
    """A [`~transformers.Trainer`] that stops at a loss or a weight that is not finite, and tells its data the epoch.

    Args:
        kwargs: as for `Trainer`.

    Raises:
        HfChainError: when the loss, a weight or what the optimizer keeps is not finite; nothing is saved then.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.args.fp16 and self.args.device.type == "cpu":
            raise HfChainError(
                "fp16 is true, which needs a GPU, and this trains on the CPU: leave it out, or use bf16"
            )
        if self.is_fsdp_enabled:
            raise HfChainError("FSDP is asked for, which nothing here trains with: use plain processes or DeepSpeed")
        if self.args.n_gpu > 1:
            raise HfChainError(
                f"one process has {self.args.n_gpu} GPUs, which the Trainer would hand slices of each batch: start"
                f" torchrun --nproc_per_node {self.args.n_gpu}, or set CUDA_VISIBLE_DEVICES to one of them"
            )
        if self.engine.is_deepspeed and glob.has_magic(str(self.args.output_dir)):
            raise HfChainError(
                f"output_dir is {self.args.output_dir}: DeepSpeed takes *, ? and [ for patterns when it goes on from a"
                " checkpoint, so give a folder without them"
            )
        # Losses here are means over the global batch, so neither the model nor the Trainer shall divide them.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self._last_loss: torch.Tensor | None = None
        self.train_order: TrainOrder | None = None
        self.add_callback(_StageCallback(self))

    @property
    def engine(self) -> Engine:
        """What is to know of the engine that trains."""
        return Engine(self.accelerator)

    @property
    def _unwrapped(self) -> Any:
        """The model as it was given to the engine."""
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    # What a stage does when a training begins, after its steps, and at its end

    def on_begin(self) -> None:
        """Begins to measure."""

    def on_step(self) -> None:
        """After a step of the optimizer, before that of the schedule."""

    def on_end(self) -> None:
        """Says what is to be said of the whole training."""

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward pass on this process's part of the global batch."""
        self._last_loss = self._step(model, inputs, num_items_in_batch)
        return self._last_loss

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Resumed from the checkpoint of the last step, the Trainer would take one more where an epoch is not over.
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
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

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `Trainer` does, on data that have a step, from finite weights."""
        dataset: Any = self.train_dataset
        batch = self.args.train_batch_size * self.args.world_size if self.args.dataloader_drop_last else 1
        if hasattr(dataset, "__len__") and len(dataset) < batch:
            raise HfChainError(
                f"train_dataset has {len(dataset)} rows and a batch over all processes {batch}, so there is no step "
                "to take: lower per_device_train_batch_size, or set dataloader_drop_last=False"
            )
        require_finite(self.model, "the model to train")
        return super().train(*args, **kwargs)

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """Refused: it makes models by `model_init`, which no trainer here takes."""
        raise HfChainError("hyperparameter_search makes models by model_init, which is not taken: train once a trial")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with self._loading(resume_from_checkpoint), names_as_in_memory(self._unwrapped):
            try:
                super()._load_from_checkpoint(resume_from_checkpoint, model)
            except RuntimeError as error:
                reason = " ".join(str(error).split())
                raise HfChainError(f"{resume_from_checkpoint} does not fit the model: {reason[:300]}") from error

    def _load_best_model(self) -> None:
        # DeepSpeed's own checkpoint holds what is beside the model as well.
        own = nullcontext() if self.engine.is_deepspeed else self._loading(self.state.best_model_checkpoint)
        with own, names_as_in_memory(self._unwrapped):
            super()._load_best_model()

    def _loading(self, checkpoint: str) -> AbstractContextManager[None]:
        """Around the loading of a checkpoint's model: reads what is beside it."""
        return nullcontext()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuses a checkpoint of another model; the Trainer would go on from the weights that fit."""
        named = dict(self.model.named_parameters(remove_duplicate=False))
        missing = set(load_result.missing_keys)
        # A tied weight is in the file once.
        read = {id(parameter) for name, parameter in named.items() if name not in missing}
        missing = {name for name in missing if id(named.get(name)) not in read and not self._is_beside(name)}
        for names, fault in ((missing, "lacks"), (load_result.unexpected_keys, "holds, and the model lacks,")):
            if names:
                more = f" and {len(names) - 1} more weights" if len(names) > 1 else ""
                raise HfChainError(f"the checkpoint {fault} {min(names)}{more}: go on with the model that wrote it")

    def _is_beside(self, name: str) -> bool:
        """Whether a weight is kept in a file of its own beside the model's."""
        return False

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model, unless a weight is not finite."""
        if not _internal_call:
            self._require_finite_weights()
        super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self._last_loss is not None:
            self._require_finite(self.engine.mean(self._last_loss.item()))
        self._require_finite_weights()
        # Older ones are deleted when this one is on disk, with its manifest.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial))
            write_manifest(folder / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            rotate_checkpoints(str(folder), limit, self.state.best_model_checkpoint, use_mtime=True)
        # A launcher ends the others once one process has ended.
        self.accelerator.wait_for_everyone()

    def _require_finite_weights(self) -> None:
        """Looks at the weights, and at what the optimizer keeps for them."""
        named = dict(self._unwrapped.named_parameters())
        found = first_not_finite_of(named.items())
        if any(is_sharded(parameter) for parameter in named.values()):
            # Each process sees its own part.
            names = list(named)
            (last,) = self.engine.max([-1 if found is None else names.index(found)])
            found = names[last] if last >= 0 else None
        if found is None and self.optimizer is not None:
            kept = getattr(self.optimizer, "state", {})
            found = first_not_finite_of(
                (f"what the optimizer keeps for {name}", value)
                for name, parameter in named.items()
                for value in kept.get(parameter, {}).values()
                if torch.is_tensor(value)
            )
        if found is not None:
            raise HfChainError(
                f"{found} holds NaN or infinity at step {self.state.global_step}, so nothing is saved: lower the"
                " learning rate, lengthen the warm-up, or clip gradients (max_grad_norm)"
            )

    def _require_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise HfChainError(
                f"The loss is {loss} at step {self.state.global_step}: lower the learning rate, lengthen the warm-up, "
                "or look for images and texts that are not finite"
            )


class _StageCallback(TrainerCallback):
    """Calls the trainer, and tells data set and order their epoch.

    accelerate tells only samplers, and not those under a resumed loader.
    """

    def __init__(self, trainer: StageTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **kwargs: Any) -> None:
        self.trainer.on_begin()

    def on_epoch_begin(self, *_: Any, **kwargs: Any) -> None:
        trainer, dataset = self.trainer, self.trainer.train_dataset
        epoch = int((trainer.state.epoch or 0.0) + 1e-6)
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(epoch)
        if trainer.train_order is not None:
            trainer.train_order.epoch = epoch

    def on_optimizer_step(self, *_: Any, **kwargs: Any) -> None:
        self.trainer.on_step()

    def on_train_end(self, *_: Any, **kwargs: Any) -> None:
        self.trainer.on_end()


def stop(args: TrainingArguments, control: TrainerControl) -> None:
    """Ends a training after the step it is in, with a checkpoint, as the last of all steps has one.

    Args:
        args (`TrainingArguments`): the trainer's.
        control (`TrainerControl`): the trainer's.
    """
    control.should_training_stop = True
    control.should_save = control.should_save or args.save_strategy == SaveStrategy.STEPS


def require_columns(batch: Mapping[str, Any], names: Iterable[str], collator: str) -> None:
    """Refuses a batch without what a trainer reads.

    Args:
        batch (`Mapping`): what the data collator has made.
        names (`Iterable[str]`): what it must hold.
        collator (`str`): the collator that makes such batches.

    Raises:
        HfChainError: naming the first that is not there, and what is.
    """
    for name in names:
        if name not in batch:
            raise HfChainError(
                f"the batch has no {name}, only {', '.join(batch) or 'nothing'}: give data_collator={collator}"
            )


class TrainOrder(Sampler[int]):
    """Another sampler's order, drawn with a seed of its own instead of the state the process is in.

    accelerate does so for `RandomSampler` alone.

    Args:
        sampler (`Sampler`): draws from torch's generator.
        seed (`int`): seed of the first epoch; those after it count on from there.

    Attributes:
        epoch (`int`): the present one, to be set before the order is drawn.
    """

    def __init__(self, sampler: Sampler[int], seed: int) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, 0

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.epoch)
            order = list(self.sampler)
        return iter(order)
