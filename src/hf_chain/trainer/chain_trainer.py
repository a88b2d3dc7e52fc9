"""ChainTrainer: the Trainer that trains one member of a chain."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset, RandomSampler
from transformers import PreTrainedModel

from hf_chain.arguments.checkpointing import check_checkpointing
from hf_chain.arguments.trainer_arguments import check_arguments, check_optimizers
from hf_chain.cost import StepCost
from hf_chain.data.streams import EndlessStream, LanedStream
from hf_chain.distillation import LiveTeacher, weight_factor
from hf_chain.distillation.teacher import FeatureSource
from hf_chain.engine import builds_in_pieces
from hf_chain.errors import HfChainError
from hf_chain.master_weights import HALF, widen
from hf_chain.tasks import find_task
from hf_chain.tasks.accumulation import backward_added_up, backward_through_features
from hf_chain.tasks.task import Features, Handed
from hf_chain.trainer.chain_config import ChainConfig
from hf_chain.trainer.inherited_state import NamedState, NewWeightsWarmup, inherit
from hf_chain.trainer.meters import Meters
from hf_chain.trainer.stage_trainer import StageTrainer, require_columns
from hf_chain.trainer.trunk import Trunk, TrunkRate


class ChainTrainer(StageTrainer):
    """Trains one member with the loss of its task and, where it has a predecessor, the feature loss.

    Whatever works with [`~transformers.Trainer`] works here. Saved folders, checkpoints included, load with the stock
    class of the model. Source: CoM-PT (arXiv 2604.12391).

    Args:
        model (`PreTrainedModel`): the member to train, of a class that the task takes. It is trained itself, within
            the module that `trainer.model` is and that shares its modules; what is frozen stays so. In half precision
            it is widened to float32, and saved so: small steps would be rounded away.
        args (`ChainConfig`): the arguments; `task` names the task, which says what models, batches, predictions and
            labels are.
        teacher (`PreTrainedModel` or `FeatureSource`, *optional*): the predecessor, which is frozen, or a cache of its
            features.
        optimizer_state (`Mapping`, *optional*): AdamW's state by the names of the model's weights, which the training
            begins with: what `grow` has made of the predecessor's.
        kwargs: as for `Trainer`: `train_dataset`, `data_collator`, `processing_class`, `callbacks`, `optimizers`, … .

    Raises:
        HfChainError: when the task does not train the model, when it has an adapter or nothing to train, when the
            teacher cannot read what the model reads, for an argument that would do nothing, when a step has too few
            samples or the data no whole step, when the loss or a weight stops being finite, and under ZeRO-3 for a
            model in half precision.
    """

    args: ChainConfig

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: ChainConfig | None = None,
        teacher: PreTrainedModel | FeatureSource | None = None,
        optimizer_state: NamedState | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments(type(self), model, args, ChainConfig, kwargs)
        assert model is not None and args is not None
        if teacher is model:
            raise HfChainError("the teacher is the model to train, which it would freeze: give another one")
        self.task = find_task(args.task)(args)
        source = None if teacher is None else self.task.teacher(teacher, model)
        model = self.task.wrap(model, source)
        check_optimizers(kwargs.get("optimizers"), model, *self.task.added(model))
        if not builds_in_pieces():
            widen(model.parameters())
        elif any(parameter.dtype in HALF for parameter in model.parameters()):
            raise HfChainError("Under ZeRO-3 a model in half precision cannot be widened: load it in float32")
        if not all(parameter.requires_grad for parameter in model.parameters()):
            check_checkpointing(model)
        super().__init__(model=model, args=args, **kwargs)
        self.task.text_tokens = getattr(self.data_collator, "max_length", None)
        # Means over samples are averaged over accumulated batches, by the Trainer too.
        self.loss_is_scaled_for_ga = not self.task.additive
        engine = self.engine
        if engine.is_deepspeed and self.optimizer is not None:
            raise HfChainError("DeepSpeed is used and optimizers is given: leave it out, or use plain processes")
        self._flattened = engine.flatten_scalars(model)
        engine.gather_for(self.task.readers(model))
        if isinstance(source, LiveTeacher):
            source.model = engine.place_teacher(source.model, self.task.readers(source.model))
        self.teacher = source
        self.inherited_state = optimizer_state
        self.trunk = Trunk(self, args) if args.trunk_decay is not None else None
        if self.trunk is not None:
            if kwargs.get("optimizers", (None, None))[1] is not None:
                raise HfChainError("optimizers holds a schedule, and trunk_decay is one: leave one of them out")
            self.add_callback(self.trunk)
        if engine.is_deepspeed and (optimizer_state or args.trunk_merge):
            given = "an optimizer_state" if optimizer_state else "trunk_merge"
            raise HfChainError(f"DeepSpeed keeps weights and AdamW's state itself, and takes no {given}: leave it out")
        self.meters: Meters | None = None
        self._loss_parts: dict[str, torch.Tensor] = {}

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `Trainer` does, once a step has enough samples for the loss and the data a whole step."""
        self.task.check_batch(self.args.train_batch_size * self.args.world_size)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise HfChainError("every parameter of the model is frozen: set requires_grad of those to train")
        try:
            return super().train(*args, **kwargs)
        finally:
            self.engine.restore_scalars(self._flattened)

    def on_begin(self) -> None:
        """Starts the meters."""
        self.meters = None
        self._meters.start(self.state.global_step)

    def on_step(self) -> None:
        """Limits what the task limits, such as a logit scale."""
        for parameter, largest in self.task.limits(self._unwrapped):
            self.engine.clamp(parameter, largest)

    # What the optimizer begins with, and how its rate goes

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The Trainer's, with the state that was grown."""
        new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if new and self.inherited_state is not None:
            inherit(optimizer, self._unwrapped, self.inherited_state)
            if self.args.new_weights_warmup:
                NewWeightsWarmup(optimizer, self._unwrapped, self.inherited_state, self._warmth_of_new_weights)
        return optimizer

    def _warmth_of_new_weights(self) -> float:
        return (self.state.global_step + 1) / (self.args.new_weights_warmup * self.state.max_steps)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The Trainer's, or that of a trunk."""
        if self.trunk is None:
            return super().create_scheduler(num_training_steps, optimizer)
        self.trunk.rate = TrunkRate.of(self.args, num_training_steps)
        schedule: Any = LambdaLR(optimizer or self.optimizer, self.trunk.rate)
        self.lr_scheduler, self._created_lr_scheduler = schedule, True
        return schedule

    # What a step costs and how far the training is

    def step_cost(self, total_steps: int) -> StepCost:
        """MACs as a function of the optimiser steps done, for a training of `total_steps` steps."""
        teacher = self.teacher.model if isinstance(self.teacher, LiveTeacher) else None
        cost = self.task.step_cost(self._unwrapped, teacher, self.train_dataset, total_steps)
        if macs := getattr(self.teacher, "handing_macs", 0) if teacher is None else 0:
            # What a cache leaves to be done at every step.
            steps = math.ceil(self.args.feature_loss_until * total_steps) if self.args.feature_loss_weight else 0
            cost = replace(cost, teacher=(macs, macs), teacher_steps=steps)
        return cost

    @property
    def feature_weight(self) -> float:
        """Present weight of the feature loss."""
        if self.teacher is None:
            return 0.0
        args, state = self.args, self.state
        assert args.feature_loss_weight is not None
        factor = weight_factor(args.feature_loss_schedule, args.feature_loss_until, state.global_step, state.max_steps)
        return args.feature_loss_weight * factor

    # One sample's way: batch -> features -> losses -> gradient

    def _step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """On this process's part of the global batch, at once or in micro-batches."""
        require_columns(inputs, self.task.columns, self.task.collator)
        state = self.state
        inputs = {**inputs, **self.task.drawn(self._unwrapped, inputs, state.global_step, state.max_steps)}
        if self.args.micro_batch_size is None:
            loss = super()._step(model, inputs, num_items_in_batch)
        else:
            model.train()
            inputs = self._prepare_inputs(inputs)
            if self.task.additive:
                return self._add_up(model, inputs)
            loss = backward_through_features(
                model,
                self._model_inputs(inputs),
                self.args.micro_batch_size,
                lambda features: self._loss(features, inputs),
                self.engine,
                self.task.unbatched,
            )
        self._meters.add(**self._loss_parts)
        return loss

    def _add_up(self, model: nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        def loss_of(part: Any) -> torch.Tensor:
            with self.compute_loss_context_manager():
                loss: torch.Tensor = self.compute_loss(model, part)
            self._meters.add(**self._loss_parts)
            return loss / self.current_gradient_accumulation_steps

        tensors = {name: value for name, value in inputs.items() if torch.is_tensor(value)}
        assert self.args.micro_batch_size is not None
        return backward_added_up(tensors, self.args.micro_batch_size, loss_of, model, self.engine)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The task's loss over the global batch plus the weighted feature loss."""
        require_columns(inputs, self.task.columns, self.task.collator)
        outputs = model(**self._model_inputs(inputs), **self.task.options)
        loss = self._loss(outputs, inputs)
        return (loss, outputs) if return_outputs else loss

    def _loss(self, features: Features, inputs: dict[str, Any]) -> torch.Tensor:
        loss = self.task.loss(features, inputs)
        self._loss_parts = {f"{self.args.task}_loss": loss.detach(), **self.task.shown(features)}
        if self.teacher is None or not self.model.training:
            return loss
        student, weight = self.task.handed(features), self.feature_weight
        if weight == 0 and not self.task.added(self._unwrapped)[0]:
            return loss
        if weight == 0:
            # What maps them to the teacher stays in the graph: engines expect a gradient of every parameter.
            return loss + 0.0 * sum(feature.sum() for feature in student)
        distance = self.task.feature_loss(student, self._teacher_features(inputs))
        self._loss_parts["feature_loss"] = distance.detach()
        return loss + weight * distance

    def _teacher_features(self, inputs: dict[str, Any]) -> Handed:
        assert self.teacher is not None
        tensors = {name: value for name, value in inputs.items() if torch.is_tensor(value)}
        size = self.args.micro_batch_size or max(map(len, tensors.values()))
        with self.accelerator.autocast():
            parts = [
                self.teacher.features(dict(zip(tensors, rows, strict=True)))
                for rows in zip(*(value.split(size) for value in tensors.values()), strict=True)
            ]
        # Features may be as large as logits: nothing is copied that is whole.
        return parts[0] if len(parts) == 1 else tuple(torch.cat(feature) for feature in zip(*parts, strict=True))

    def _model_inputs(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {name: inputs[name] for name in self.task.inputs if name in inputs}

    # What of the Trainer has to know about the above

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, Any, torch.Tensor | None]:
        """The task's loss of an evaluation batch, and predictions and labels where metrics are computed."""
        with torch.no_grad():
            inputs = self._prepare_inputs(inputs)
            require_columns(inputs, self.task.columns, self.task.collator)
            inputs = {**inputs, **self.task.fixed(self._unwrapped, inputs)}
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss.detach(), None, None
        require_columns(inputs, [self.task.labels], self.task.collator)
        return loss.detach(), self.task.predictions(outputs, inputs), inputs[self.task.labels]

    def get_train_dataloader(self) -> DataLoader:
        """Batches of a stream are whole as well: it begins anew where it ends."""
        if not isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        dataset: Any = self.train_dataset
        args, batch = self.args, self.args.train_batch_size * self.args.world_size
        endless: Any = EndlessStream(dataset, least=batch)
        if hasattr(dataset, "lane"):
            # Otherwise one process reads for all, or accelerate cuts in another way.
            sliced = args.accelerator_config.dispatch_batches is False and not args.accelerator_config.split_batches
            first, size = (args.process_index * args.train_batch_size, args.train_batch_size) if sliced else (0, batch)
            endless = LanedStream(dataset, batch, range(first, first + size), args.dataloader_num_workers)
        with patch.object(self, "train_dataset", endless):
            return super().get_train_dataloader()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """An epoch has whole global batches alone, where the Trainer's last one would have fewer micro-batches."""
        sampler, args = super()._get_train_sampler(train_dataset), self.args
        if args.gradient_accumulation_steps == 1 or not args.dataloader_drop_last or sampler is None:
            return sampler
        if type(sampler) is not RandomSampler:
            raise HfChainError(
                f"train_sampling_strategy is {args.train_sampling_strategy} and gradient_accumulation_steps "
                f"{args.gradient_accumulation_steps}: draw at random, or raise per_device_train_batch_size with "
                "micro_batch_size instead"
            )
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        rows: Any = sampler.data_source
        if len(rows) < batch:
            raise HfChainError(
                f"train_dataset has {len(rows)} rows and a global batch {batch}, so there is no step to take: lower "
                "gradient_accumulation_steps or per_device_train_batch_size"
            )
        return RandomSampler(rows, num_samples=len(rows) // batch * batch, generator=sampler.generator)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Keeps the last, smaller batch, which only training drops."""
        with self._every_batch():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Keeps the last, smaller batch, which only training drops."""
        with self._every_batch():
            return super().get_test_dataloader(test_dataset)

    @contextmanager
    def _every_batch(self) -> Iterator[None]:
        dropped, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = dropped

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters with weight decay: not norms, biases and what the task leaves out."""
        return [name for name in super().get_decay_parameter_names(model) if not name.endswith(self.task.undecayed)]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds loss parts, samples/s in the task's unit, TFLOP/s and MACs so far to what the Trainer logs."""
        if self.meters is not None and "loss" in logs:
            logs |= self.meters.read(self.state.global_step)
            for name in (f"{self.args.task}_loss", "feature_loss"):
                if name in logs:
                    logs[name] = self.engine.mean(logs[name])
        super().log(logs, start_time)

    @contextmanager
    def _loading(self, checkpoint: str) -> Iterator[None]:
        yield
        self.task.load_beside(self._unwrapped, checkpoint)

    def _is_beside(self, name: str) -> bool:
        return self.task.is_beside(name)

    @property
    def _meters(self) -> Meters:
        if self.meters is None:
            cost, task = self.step_cost(self.state.max_steps), self.task
            self.meters = Meters(cost, task.unit, task.units(self.train_dataset))
        return self.meters
