"""Planning of a graft: what every stage will cost, from configurations and from the lengths of some conversations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property, partial
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

from hf_chain.arguments.checkpointing import CHECKPOINTING
from hf_chain.evaluation.generate import image_macs
from hf_chain.grafting.translator.least_squares import refitted_weights
from hf_chain.methods.graft.cut_cost import CutCost
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.evaluation import AskedLengths, asked_lengths
from hf_chain.methods.graft.lengths import Lengths, measure_lengths, rows_of_steps, shared_rows
from hf_chain.methods.graft.memory import Batch, stage_memory
from hf_chain.methods.graft.meta_models import MetaModels, new_tokenizer
from hf_chain.methods.graft.plan import GraftPlan, Measured, StagePlan, SurrogatePlan
from hf_chain.methods.graft.recipe import GraftRecipe, GraftStageSettings
from hf_chain.methods.graft.runner import Graft
from hf_chain.methods.graft.surrogate_stage import SurrogateStage
from hf_chain.methods.graft.vlm_stage import VLMStage
from hf_chain.models.grafted_vlm.processing_grafted_vlm import BOUNDARY_TOKENS
from hf_chain.trainer.batch_cost import batch_cost

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def plan_graft(recipe: GraftRecipe) -> GraftPlan:
    """Counts what a recipe's stages cost; nothing is trained and no weights are read.

    The data are loaded, and conversations of each are measured with the target's tokenizer.

    Args:
        recipe (`GraftRecipe`): the recipe.

    Raises:
        HfChainError: when a model's configuration or the data cannot be read, or a part is in no model.
    """
    graft = Graft.of(recipe, main_process=False)
    planner = _Planner(recipe, graft.context.conversations)
    plan = GraftPlan({name: planner.measured(name) for name in planner.trained_names}, None, [], [])
    for step in graft.steps():
        # A target that is trained here stands for a published one, and is in no sum.
        if isinstance(step, SurrogateStage):
            plan = replace(plan, surrogate=planner.surrogate())
        elif isinstance(step, VLMStage):
            side = plan.stages if step.settings in recipe.stages else plan.baseline
            side.append(planner.stage(step.settings))
    return plan


@dataclass
class _Planner:
    recipe: GraftRecipe
    conversations: Conversations

    def __post_init__(self) -> None:
        new = self.recipe.target.new
        tokenizer: Any = None if new is None else new_tokenizer(new, self.conversations)
        self.meta = MetaModels(self.recipe, None if tokenizer is None else len(tokenizer))
        self._tokenizer = self.meta.tokenizer if tokenizer is None else tokenizer
        self._lengths: dict[str, Lengths] = {}

    @property
    def trained_names(self) -> list[str]:
        """Data that stages are trained on, in their order."""
        stages = (*self.recipe.stages, *self.recipe.baseline)
        return list(dict.fromkeys(name for stage in stages if stage.parts or stage.refit for name in stage.data))

    def measured(self, name: str) -> Measured:
        lengths = self._lengths_of(name)
        return Measured(lengths.rows, len(lengths.tokens), mean(lengths.tokens), mean(lengths.images))

    def stage(self, settings: GraftStageSettings) -> StagePlan:
        if settings.refit is not None:
            return self._refit(settings, settings.refit)
        model, parts = self.meta.parts(settings)
        training = self.recipe.training_of(settings)
        size = training.get("per_device_train_batch_size", 8)
        by_length = training.get("train_sampling_strategy") == "group_by_length"
        data = [self._lengths_of(name) for name in settings.data] if parts else []
        packed = self.recipe.pack_tokens
        batches = [
            list(lengths.packs(size, packed) if packed else lengths.batches(size, by_length)) for lengths in data
        ]
        samples = _samples(
            shared_rows(sum(lengths.rows for lengths in data), settings.share),
            1 if packed else size * training.get("gradient_accumulation_steps", 1),
            settings.epochs,
        )
        macs, largest = 0.0, Batch(1, 1, 0)
        if parts:
            cost = batch_cost(model, parts, any(training.get(name) for name in CHECKPOINTING))
            # Each source is so much of an epoch, and a row of it costs so much.
            passes = samples / sum(lengths.rows for lengths in data)
            for lengths, its in zip(data, batches, strict=True):
                macs += passes * lengths.rows * sum(cost(_shapes(*batch)) for batch in its) / len(lengths.tokens)
            largest = max((Batch(*batch) for its in batches for batch in its), key=lambda b: b.rows * b.length)
        memory = stage_memory(model, largest, training, self.meta.weight_bytes)
        grafted = next((stage for stage in self.recipe.stages if stage.decoder == "target"), None)
        beside = 0
        if settings is grafted and self.meta.carries_layers:
            beside = self._decoder_bytes(self.meta.text("surrogate", self.meta.ranges_of(settings)))
        return StagePlan(
            name=settings.name,
            decoder=settings.decoder,
            parts=list(settings.parts),
            parameters=model.num_parameters(),
            trained_parameters=sum(p.numel() for part in parts for p in part.parameters.values()),
            samples=samples,
            macs=round(macs),
            evaluation_macs=self._evaluation_macs(settings, model),
            memory=replace(memory, teacher=beside),
        )

    def _refit(self, settings: GraftStageSettings, prompts: int) -> StagePlan:
        model, _ = self.meta.parts(settings)
        ranges = self.meta.ranges_of(settings)
        target, surrogate = self.meta.text("target"), self.meta.text("surrogate", ranges)
        macs = 0
        for name in settings.data:
            lengths = self._lengths_of(name)
            cost = CutCost(self.recipe.surrogate, target, surrogate, round(mean(lengths.tokens)))
            embedded = len(ranges) * cost.whole_runs(prompts, embedded=True)
            macs += cost.closed_form(prompts, embedded=True)
            macs += image_macs(model, round(embedded * mean(lengths.images)))
        memory = stage_memory(model, Batch(1, 1, 0), {}, self.meta.weight_bytes)
        return StagePlan(
            name=settings.name,
            decoder=settings.decoder,
            parts=["translator in closed form"],
            parameters=model.num_parameters(),
            trained_parameters=sum(weight.numel() for weight in refitted_weights(model.language_model)),
            samples=prompts * len(settings.data),
            macs=macs,
            evaluation_macs=self._evaluation_macs(settings, model),
            memory=replace(memory, teacher=self._decoder_bytes(target)),
        )

    def surrogate(self) -> SurrogatePlan:
        target, surrogate = self.meta.text("target"), self.meta.text("surrogate")
        cost = CutCost(self.recipe.surrogate, target, surrogate, self._calibration_tokens)
        return SurrogatePlan(
            replaced=[str(span) for span in self.meta.ranges],
            assumed=self.meta.cut_is_assumed,
            layers=surrogate.num_hidden_layers,
            target_layers=target.num_hidden_layers,
            cut_macs=cost.cut,
            translator_macs=cost.translator,
        )

    def _decoder_bytes(self, config: PreTrainedConfig) -> int:
        """Bytes of a language model that is in memory beside the one of the stage."""
        return self.meta.weight_bytes * self.meta.model(config).language_model.num_parameters()

    @property
    def _image_positions(self) -> int:
        config = self.meta.parts(self.recipe.stages[0])[0].config
        return (config.tokens_per_image or config.vision_config.num_patches) + BOUNDARY_TOKENS

    def _lengths_of(self, name: str) -> Lengths:
        if name not in self._lengths:
            self._lengths[name] = self._measure(
                self.conversations.splits(name)["train"], f"data.{name}", self.recipe.data[name].max_train_samples
            )
        return self._lengths[name]

    def _measure(self, rows: Any, name: str, count: int | None = None) -> Lengths:
        positions = self._image_positions
        return measure_lengths(
            rows,
            self._tokenizer,
            name=name,
            image_positions=positions,
            max_length=self.recipe.max_length,
            count=count,
        )

    @cached_property
    def _questions(self) -> list[AskedLengths]:
        return [
            asked
            for name, rows in self.conversations.evaluation_rows().items()
            for asked in asked_lengths(rows, self.recipe.evaluation, partial(self._measure, name=name))
        ]

    def _evaluation_macs(self, settings: GraftStageSettings, model: Any) -> int:
        if settings.name not in self.recipe.judged:
            return 0
        return round(sum(asked.macs(model, self.recipe.evaluation) for asked in self._questions))

    @property
    def _calibration_tokens(self) -> int:
        """Mean length of calibration text, which has no images."""
        name = self.recipe.surrogate.calibration.data or next(iter(self.recipe.data))
        lengths = self._lengths_of(name)
        positions = self._image_positions
        return round(mean(t - n * positions for t, n in zip(lengths.tokens, lengths.images, strict=True)))


def _samples(rows: int, batch: int, epochs: float) -> int:
    """Rows that a Trainer takes, which rounds the steps of a training up."""
    return rows_of_steps(math.ceil(epochs * math.ceil(rows / batch)), rows, batch) if rows else 0


def _shapes(rows: int, length: int, images: int) -> dict[str, torch.Tensor]:
    """A batch of which only the shapes count."""
    batch = {"input_ids": torch.empty(rows, length, device="meta")}
    return batch | ({"pixel_values": torch.empty(images, 1, device="meta")} if images else {})
