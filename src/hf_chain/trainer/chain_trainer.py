"""ChainTrainer: the Trainer that trains one member of a chain."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import CLIPModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from hf_chain.adapters import check_no_adapter
from hf_chain.arguments.checkpointing import check_checkpointing, checkpoints_activations
from hf_chain.arguments.trainer_arguments import check_arguments, check_optimizers
from hf_chain.cost import StepCost, clip_macs, forward_passes
from hf_chain.cost.steps import BACKWARD_FORWARDS
from hf_chain.data.streams import EndlessStream, LanedStream
from hf_chain.distillation import Teacher, TeacherFeatures, feature_loss, weight_factor
from hf_chain.distillation.teacher import FeatureSource
from hf_chain.errors import HfChainError
from hf_chain.losses import contrastive_loss
from hf_chain.master_weights import HALF, widen
from hf_chain.models import ChainCLIPModel
from hf_chain.models.chain_clip.stock_clip import MAP_SUFFIX
from hf_chain.models.token_dropping import draw_kept_tokens
from hf_chain.trainer.accumulation import Features, backward_through_features
from hf_chain.trainer.chain_config import ChainConfig
from hf_chain.trainer.engines import clamp_logit_scale, gather_positions, shard_like_student, shards_parameters
from hf_chain.trainer.fits import check_global_batch, check_teacher, require_columns
from hf_chain.trainer.meters import Meters
from hf_chain.trainer.stage_trainer import StageTrainer

MODEL_INPUTS = ("pixel_values", "input_ids", "attention_mask", "kept_tokens")


class ChainTrainer(StageTrainer):
    """Trains one member with the contrastive loss and, where it has a predecessor, the feature loss.

    Whatever works with [`~transformers.Trainer`] works here. Saved folders, checkpoints included, load with
    `CLIPModel.from_pretrained`. Source: CoM-PT (arXiv 2604.12391).

    Args:
        model (`CLIPModel` or `ChainCLIPModel`): the member to train. It is trained itself, within the `ChainCLIPModel`
            that `trainer.model` is and that shares its modules; what is frozen stays so. In half precision it is
            widened to float32, and saved so: small steps would be rounded away.
        args (`ChainConfig`): the arguments.
        teacher (`CLIPModel` or `FeatureSource`, *optional*): the predecessor, which is frozen, or a cache of its
            features.
        kwargs: as for `Trainer`: `train_dataset`, `data_collator`, `processing_class`, `callbacks`, `optimizers`, … .
            `compute_metrics` gets `predictions`, image embeddings `[N, D]` and text embeddings `[N, K, D]`, both
            L2-normalised, and as `label_ids` the batch's `caption_ids` `[N, K]`.

    Raises:
        HfChainError: when the model is no `CLIPModel`, has an adapter or nothing to train, when the teacher cannot
            read what the model reads, for an argument that would do nothing, when a step has no two images or the
            data no whole step, when the loss or a weight stops being finite, and under ZeRO-3 for a model in half
            precision.
    """

    args: ChainConfig

    def __init__(
        self,
        model: CLIPModel | ChainCLIPModel | None = None,
        args: ChainConfig | None = None,
        teacher: CLIPModel | FeatureSource | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments(type(self), model, args, ChainConfig, kwargs)
        if teacher is not None and not isinstance(teacher, CLIPModel) and not hasattr(teacher, "embedding_size"):
            raise HfChainError(
                f"the teacher is a {type(teacher).__name__}: give a CLIPModel or a cache of its features"
            )
        assert model is not None
        if teacher is model:
            raise HfChainError("the teacher is the model to train, which it would freeze: give another one")
        if isinstance(teacher, CLIPModel) and isinstance(model, CLIPModel):
            check_teacher(teacher.config, model.config)
        source = Teacher(teacher) if isinstance(teacher, CLIPModel) else teacher
        self._given = model
        if isinstance(model, ChainCLIPModel):
            if not is_deepspeed_zero3_enabled():
                check_no_adapter(model, "this ChainCLIPModel")
        else:
            if is_deepspeed_zero3_enabled():
                raise HfChainError("Under ZeRO-3 pass ChainCLIPModel.from_clip(model), made before ChainConfig")
            model = ChainCLIPModel.from_clip(model, source.embedding_size if source else None)
        maps = {name: weight for name, weight in model.named_parameters() if MAP_SUFFIX in name}
        size = model.config.teacher_projection_dim
        remedy = f"give ChainCLIPModel.from_clip(model, {size}) and an optimizer of its parameters"
        check_optimizers(kwargs.get("optimizers"), model, maps, remedy)
        if not is_deepspeed_zero3_enabled():
            widen(model.parameters())
        elif any(parameter.dtype in HALF for parameter in model.parameters()):
            raise HfChainError("Under ZeRO-3 a model in half precision cannot be widened: load it in float32")
        if not all(parameter.requires_grad for parameter in model.parameters()):
            check_checkpointing(model)
        super().__init__(model=model, args=args, **kwargs)
        if self.is_deepspeed_enabled:
            if self.optimizer is not None:
                raise HfChainError("DeepSpeed is used and optimizers is given: leave it out, or use plain processes")
            # It breaks on 0-d parameters.
            scale = model.logit_scale
            model.logit_scale = nn.Parameter(scale.data.reshape(1), scale.requires_grad)
        # The loss is a mean over the global batch: nothing to divide by the number of micro-batches.
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = False
        self.teacher = source
        if shards_parameters(self.accelerator):
            gather_positions(model)
        if isinstance(source, Teacher):
            source.model = shard_like_student(source.model, self.accelerator)
        self.meters: Meters | None = None
        self._loss_parts: dict[str, torch.Tensor] = {}
        self.add_callback(_MemberCallback(self))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `Trainer` does, once a step has images to tell apart and the data a whole step."""
        check_global_batch("", self.args.train_batch_size * self.args.world_size)
        if not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise HfChainError("every parameter of the model is frozen: set requires_grad of those to train")
        try:
            return super().train(*args, **kwargs)
        finally:
            if self._given.logit_scale is not (scale := self._chain_model.logit_scale):
                self._given.logit_scale.data.copy_(scale.data.reshape(self._given.logit_scale.shape))

    # What a step costs and how far the training is

    def step_cost(self, total_steps: int) -> StepCost:
        """MACs as a function of the optimiser steps done, for a training of `total_steps` steps."""
        args, config = self.args, self._chain_model.config
        dataset: Any = self.train_dataset
        teacher = self.teacher.model if isinstance(self.teacher, Teacher) else None
        keep = args.image_token_keep
        model = self._chain_model
        again = bool(args.gradient_checkpointing) or checkpoints_activations(model)
        # Nothing goes back through a tower that is frozen whole, and nothing of it is computed again for that.
        frozen = (
            not any(parameter.requires_grad for parameter in tower.parameters())
            for tower in (model.vision_model, model.text_model)
        )
        spared = [(BACKWARD_FORWARDS + again) * locked for locked in frozen]
        return StepCost(
            samples_per_step=args.per_device_train_batch_size * args.world_size,
            captions=getattr(dataset, "captions_per_image", 1),
            student=(clip_macs(config, image_token_keep=keep), clip_macs(config)),
            teacher=(clip_macs(teacher.config, image_token_keep=keep), clip_macs(teacher.config)) if teacher else None,
            student_passes=BACKWARD_FORWARDS + forward_passes(args.micro_batch_size, again),
            teacher_steps=math.ceil(args.feature_loss_until * total_steps) if args.feature_loss_weight else 0,
            unmasked_from=math.ceil((1 - args.unmasked_tail) * total_steps) if keep < 1 else 0,
            spared=(spared[0], spared[1]),
        )

    @property
    def feature_weight(self) -> float:
        """Present weight of the feature loss."""
        if self.teacher is None:
            return 0.0
        args, state = self.args, self.state
        factor = weight_factor(args.feature_loss_schedule, args.feature_loss_until, state.global_step, state.max_steps)
        return args.feature_loss_weight * factor

    @property
    def _chain_model(self) -> ChainCLIPModel:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    # One sample's way: batch -> embeddings -> losses -> gradient

    def _step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """On this process's part of the global batch, at once or accumulated through cached features."""
        if self.state.global_step < self._cost.unmasked_from:
            inputs = inputs | {"kept_tokens": self._draw_kept_tokens(inputs["pixel_values"])}
        if self.args.micro_batch_size is None:
            loss = super()._step(model, inputs, num_items_in_batch)
        else:
            model.train()
            inputs = self._prepare_inputs(inputs)
            self._require_columns(inputs)
            kwargs = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
            loss = backward_through_features(
                model,
                _model_inputs(inputs),
                self.args.micro_batch_size,
                lambda features: self._loss(features, inputs),
                self.accelerator,
                **kwargs,
            )
        self._meters.add(**self._loss_parts)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Contrastive loss over the global batch plus the weighted feature loss."""
        self._require_columns(inputs)
        outputs = model(**_model_inputs(inputs))
        loss = self._loss(outputs, inputs)
        return (loss, outputs) if return_outputs else loss

    def _loss(self, features: Features, inputs: dict[str, Any]) -> torch.Tensor:
        ids = inputs["caption_ids"] if self.args.identical_captions_positive else None
        task = contrastive_loss(features["image_embeds"], features["text_embeds"], features["logit_scale"], ids)
        self._loss_parts = {"contrastive_loss": task.detach(), "logit_scale": features["logit_scale"].detach()}
        if self.teacher is None or not self.model.training:
            return task
        image, text = features["image_embeds_for_teacher"], features["text_embeds_for_teacher"]
        weight = self.feature_weight
        if weight == 0:
            # The maps to the teacher stay in the graph: distributed engines expect a gradient of every parameter.
            return task + 0.0 * (image.sum() + text.sum())
        target = self._teacher_features(inputs)
        distance = feature_loss(image, text, target.image, target.text)
        self._loss_parts["feature_loss"] = distance.detach()
        return task + weight * distance

    def _require_columns(self, inputs: dict[str, Any]) -> None:
        ids = ["caption_ids"] if self.args.identical_captions_positive else []
        require_columns(inputs, ["pixel_values", "input_ids", *ids], "ImageTextCollator(processor)")

    def _teacher_features(self, inputs: dict[str, Any]) -> TeacherFeatures:
        assert self.teacher is not None
        size = self.args.micro_batch_size or len(inputs["pixel_values"])
        names = [name for name, value in inputs.items() if torch.is_tensor(value)]
        parts = []
        with self.accelerator.autocast():
            for rows in zip(*(inputs[name].split(size) for name in names), strict=True):
                parts.append(self.teacher.features(dict(zip(names, rows, strict=True))))
        return TeacherFeatures(torch.cat([p.image for p in parts]), torch.cat([p.text for p in parts]))

    def _draw_kept_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Draws for the whole global batch, by seed and step alone: the same however often a training is resumed."""
        vision, rows, args = self._chain_model.config.vision_config, len(pixel_values), self.args
        patches = (vision.image_size // vision.patch_size) ** 2
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + self.state.global_step)
        kept = draw_kept_tokens(rows * args.world_size, patches, args.image_token_keep, generator)
        return kept[args.process_index * rows :][:rows].to(pixel_values.device)

    # What of the Trainer has to know about the above

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor | None, Any, torch.Tensor | None]:
        """Contrastive loss of an evaluation batch, and its embeddings and caption ids where metrics are computed."""
        with torch.no_grad():
            inputs = self._prepare_inputs(inputs)
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if prediction_loss_only:
            return loss.detach(), None, None
        require_columns(inputs, ["caption_ids"], "ImageTextCollator(processor)")
        return loss.detach(), (outputs["image_embeds"], outputs["text_embeds"]), inputs["caption_ids"]

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
        """Names of the parameters with weight decay: not norms, biases and the logit scale."""
        return [name for name in super().get_decay_parameter_names(model) if not name.endswith("logit_scale")]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds loss parts, logit scale, images/s, TFLOP/s and MACs so far to what the Trainer logs."""
        if self.meters is not None and "loss" in logs:
            logs |= self.meters.read(self.state.global_step)
            for name in ("contrastive_loss", "feature_loss"):
                if name in logs:
                    logs[name] = self._mean_over_processes(logs[name])
        super().log(logs, start_time)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._chain_model.load_teacher_maps(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if not self.is_deepspeed_enabled:
            # Its own checkpoint holds the maps as well.
            self._chain_model.load_teacher_maps(self.state.best_model_checkpoint)

    def _is_beside(self, name: str) -> bool:
        return MAP_SUFFIX in name

    @property
    def _meters(self) -> Meters:
        if self.meters is None:
            self.meters = Meters(self.step_cost(self.state.max_steps))
        return self.meters

    @property
    def _cost(self) -> StepCost:
        return self._meters.cost


def _model_inputs(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: inputs[name] for name in MODEL_INPUTS if name in inputs}


class _MemberCallback(TrainerCallback):
    """Starts the meters and clamps the logit scale."""

    def __init__(self, trainer: ChainTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.meters = Meters(self.trainer.step_cost(state.max_steps))
        self.trainer.meters.start(state.global_step)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        clamp_logit_scale(self.trainer._chain_model, self.trainer.is_deepspeed_enabled)
