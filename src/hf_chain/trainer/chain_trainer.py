"""ChainTrainer: the Trainer that trains one member of a chain."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from transformers import CLIPModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from hf_chain.cost import clip_macs
from hf_chain.distillation import Teacher, TeacherFeatures, feature_loss, weight_factor
from hf_chain.distillation.teacher import FeatureSource
from hf_chain.errors import HfChainError
from hf_chain.losses import contrastive_loss
from hf_chain.models import ChainCLIPModel
from hf_chain.models.token_dropping import draw_kept_tokens
from hf_chain.trainer.accumulation import Features, backward_through_features
from hf_chain.trainer.chain_config import ChainConfig
from hf_chain.trainer.engines import clamp_logit_scale, gather_positions, shard_like_student, shards_parameters
from hf_chain.trainer.meters import Meters, StepCost
from hf_chain.trainer.stage_trainer import StageTrainer

MODEL_INPUTS = ("pixel_values", "input_ids", "attention_mask", "kept_tokens")


class ChainTrainer(StageTrainer):
    """Trains one member with the contrastive loss and, where it has a predecessor, the feature loss.

    Whatever works with [`~transformers.Trainer`] works here. Saved folders, checkpoints included, load with
    `CLIPModel.from_pretrained`. Source: CoM-PT (arXiv 2604.12391).

    Args:
        model (`CLIPModel` or `ChainCLIPModel`): the member to train.
        args (`ChainConfig`): the arguments.
        teacher (`CLIPModel` or `FeatureSource`, *optional*): the predecessor, which is frozen, or a cache of its
            features.
        kwargs: as for `Trainer`: `train_dataset`, `data_collator`, `processing_class`, `callbacks`, …

    Raises:
        HfChainError: when the loss stops being finite.
    """

    args: ChainConfig

    def __init__(
        self,
        model: CLIPModel | ChainCLIPModel,
        args: ChainConfig,
        teacher: CLIPModel | FeatureSource | None = None,
        **kwargs: Any,
    ) -> None:
        source = Teacher(teacher) if isinstance(teacher, CLIPModel) else teacher
        if not isinstance(model, ChainCLIPModel):
            if is_deepspeed_zero3_enabled():
                raise HfChainError("Under ZeRO-3 pass ChainCLIPModel.from_clip(model), made before ChainConfig")
            model = ChainCLIPModel.from_clip(model, source.embedding_size if source else None)
        super().__init__(model=model, args=args, **kwargs)
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

    # What a step costs and how far the training is

    def step_cost(self, total_steps: int) -> StepCost:
        """MACs as a function of the optimiser steps done, for a training of `total_steps` steps."""
        args, config = self.args, self._chain_model.config
        dataset: Any = self.train_dataset
        teacher = self.teacher.model if isinstance(self.teacher, Teacher) else None
        keep = args.image_token_keep
        return StepCost(
            samples_per_step=args.per_device_train_batch_size * args.world_size,
            captions=getattr(dataset, "captions_per_image", 1),
            student=(clip_macs(config, image_token_keep=keep), clip_macs(config)),
            teacher=(clip_macs(teacher.config, image_token_keep=keep), clip_macs(teacher.config)) if teacher else None,
            student_passes=3 if args.micro_batch_size is None else 4,
            teacher_steps=math.ceil(args.feature_loss_until * total_steps) if args.feature_loss_weight else 0,
            unmasked_from=math.ceil((1 - args.unmasked_tail) * total_steps) if keep < 1 else 0,
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
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Contrastive loss of an evaluation batch; embeddings are evaluated by `hf_chain.evaluation`."""
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

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
