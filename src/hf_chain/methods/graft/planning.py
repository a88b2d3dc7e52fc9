"""Planning of a graft: what every stage will cost, from configurations and from the lengths of some conversations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from hf_chain.arguments.checkpointing import CHECKPOINTING
from hf_chain.cost.macs import decoder_macs
from hf_chain.cost.steps import FLOAT32, Segment, training_macs
from hf_chain.evaluation.generate import image_macs
from hf_chain.grafting.cut import CHOOSING
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.ranges import LayerRange
from hf_chain.grafting.shards import named_dtype
from hf_chain.grafting.translator.fit import method_steps
from hf_chain.grafting.translator.least_squares import calibration_passes, equation_macs, refitted_weights
from hf_chain.grafting.translator.splice_runs import gradients_macs, kept_texts
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.evaluation import AskedLengths, asked_lengths
from hf_chain.methods.graft.lengths import Lengths, measure_lengths, rows_of_steps, shared_rows
from hf_chain.methods.graft.meta_models import MetaModels, new_target_config, new_tokenizer
from hf_chain.methods.graft.parts_of_recipe import NewTargetSettings, SurrogateSettings
from hf_chain.methods.graft.plan import Batch, GraftPlan, Measured, StagePlan, SurrogatePlan, stage_memory
from hf_chain.methods.graft.recipe import GraftRecipe, GraftStageSettings
from hf_chain.methods.graft.record import TARGET
from hf_chain.methods.graft.runner import Graft
from hf_chain.methods.graft.straight import straight_stages
from hf_chain.methods.graft.surrogate_stage import SurrogateStage
from hf_chain.methods.graft.target_stage import TargetStage
from hf_chain.methods.graft.vlm_stage import VLMStage
from hf_chain.models.grafted_vlm.processing_grafted_vlm import BOUNDARY_TOKENS
from hf_chain.trainer.batch_cost import batch_cost
from hf_chain.trainer.parts import Part, resolve_parts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class CutCost:
    """Args:
    settings (`SurrogateSettings`): how the cut is chosen and mended.
    target (`PreTrainedConfig`): the target's decoder.
    surrogate (`PreTrainedConfig`): the surrogate's, with its lineage.
    tokens (`int`): mean length of the text.
    """

    settings: SurrogateSettings
    target: PreTrainedConfig
    surrogate: PreTrainedConfig
    tokens: int

    @property
    def cut(self) -> int:
        """MACs of choosing the ranges; none where they are named."""
        if self.settings.replaced not in CHOOSING:
            return 0
        # Each layer's state goes through the head, at every position but the last.
        heads = (self.target.num_hidden_layers + 1) * (self.tokens - 1) + 1
        sample = decoder_macs(self.target, self.tokens, head=False) + heads * decoder_macs(self.target, 1, layers=())
        macs = self.settings.calibration.samples * sample
        if self.settings.replaced == "splice_error":
            # A translator is fitted for every beginning that a range may have.
            macs += (self.target.num_hidden_layers - 1) * self._closed_form
        return macs

    @property
    def translator(self) -> int:
        """MACs of making the translators."""
        return sum(map(self._method, method_steps(self.settings.translator)))

    def _method(self, name: str) -> int:
        kind, _, objective = name.partition(":")
        if kind == "inherit":
            return 0
        if kind == "closed_form":
            return self._closed_form
        return self._training(objective or self.settings.translator_training.get("objective", "hidden"))

    @property
    def _splices(self) -> list[tuple[LayerRange, int]]:
        """The ranges, and the surrogate's last layer that stands in for each."""
        lineage = read_lineage(self.surrogate)
        ends = lineage.translator_layers[lineage.translators - 1 :: lineage.translators]
        return list(zip(lineage.replaced, ends, strict=True))

    @property
    def _closed_form(self) -> int:
        return self.closed_form(self.settings.calibration.translator_samples)

    def closed_form(self, samples: int, embedded: bool = False) -> int:
        """MACs of fitting all translators in closed form, on so many texts, which may come as embeddings."""
        whole = self.whole_runs(samples, embedded)
        again = samples * calibration_passes(self.surrogate) - whole
        return sum(
            whole * (self._forward(self.target, range(span.last + 1)) + self._forward(self.surrogate, range(end + 1)))
            + again * self._forward(self.surrogate, [end])
            for span, end in self._splices
        ) + equation_macs(self._decoder, samples * self.tokens)

    @cached_property
    def _decoder(self) -> PreTrainedModel:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(self.surrogate)

    def whole_runs(self, samples: int, embedded: bool = False) -> int:
        """How often texts are run from their embeddings on to fit one translator: once where they are kept."""
        dtype = named_dtype(self.target) or torch.float32
        kept = min(samples, kept_texts(self.target.hidden_size, self.tokens, dtype.itemsize, embedded))
        return kept + (samples - kept) * calibration_passes(self.surrogate)

    def _training(self, objective: str) -> int:
        whole, (span, end) = objective != "hidden", self._splices[-1]
        trained = read_lineage(self.surrogate).translator_layers
        epochs = self.settings.translator_training.get("num_train_epochs", 1.0)
        texts = self.settings.calibration.translator_samples * epochs
        if objective == "gradients":
            first = self._splices[0][0].first
            return round(texts * gradients_macs(self.target, self.surrogate, self.tokens, first, trained))
        layers = range(self.surrogate.num_hidden_layers if whole else end + 1)
        segments = [Segment(str(i), self._forward(self.surrogate, [i]), float(i in trained)) for i in layers]
        segments.append(Segment("head", self._forward(self.surrogate, [], head=whole)))
        looked_at = {"hidden": range(span.last + 1), "logits": range(self.target.num_hidden_layers)}.get(objective)
        teacher = 0 if looked_at is None else self._forward(self.target, looked_at, head=whole)
        return round(texts * (training_macs(segments) + teacher))

    def _forward(self, config: PreTrainedConfig, layers: Iterable[int], head: bool = False) -> int:
        return decoder_macs(config, self.tokens, layers=layers, head=head)


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
    plan = GraftPlan({name: planner.measured(name) for name in planner.trained_names}, None, None, [], [], [])
    for step in graft.steps():
        if isinstance(step, TargetStage):
            plan = replace(plan, target=planner.target(step.settings))
        elif isinstance(step, SurrogateStage):
            plan = replace(plan, surrogate=planner.surrogate())
        elif isinstance(step, VLMStage):
            side = plan.stages if step.settings in recipe.stages else plan.baseline
            side.append(planner.stage(step.settings))
    return replace(plan, straight=list(map(planner.stage, straight_stages(recipe))))


@dataclass
class _Planner:
    recipe: GraftRecipe
    conversations: Conversations

    def __post_init__(self) -> None:
        new = self.recipe.target.new
        tokenizer: Any = None if new is None else new_tokenizer(new, self.conversations)
        self.meta = MetaModels(self.recipe, None if tokenizer is None else len(tokenizer))
        self._tokenizer: Any = self.meta.tokenizer if tokenizer is None else tokenizer
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
        samples, macs, largest = self._training(model, parts, settings, training, self.recipe.pack_tokens)
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
            macs=macs,
            evaluation_macs=self._evaluation_macs(settings, model),
            memory=replace(memory, teacher=beside),
        )

    def target(self, settings: NewTargetSettings) -> StagePlan:
        """The target that is trained here."""
        with torch.device("meta"):
            model = LlamaForCausalLM(new_target_config(settings, len(self._tokenizer)))
        parts, training = resolve_parts(model, {"decoder": None}, 1.0), self.recipe.training_of_step(TARGET)
        samples, macs, largest = self._training(model, parts, settings, training)
        rows = self.conversations.splits(settings.data[0])["validation"]
        asked = asked_lengths(rows, self.recipe.evaluation, partial(self._measure, name=f"data.{settings.data[0]}"))
        return StagePlan(
            name=TARGET,
            decoder=TARGET,
            parts=["decoder"],
            parameters=model.num_parameters(),
            trained_parameters=model.num_parameters(),
            samples=samples,
            macs=macs,
            evaluation_macs=round(sum(one.macs(model, self.recipe.evaluation) for one in asked)),
            memory=stage_memory(model, largest, training, FLOAT32),
        )

    def _training(
        self,
        model: PreTrainedModel,
        parts: Sequence[Part],
        settings: GraftStageSettings | NewTargetSettings,
        training: Mapping[str, Any],
        packed: int | None = None,
    ) -> tuple[int, int, Batch]:
        """Conversations that a training takes, its MACs, and its largest batch."""
        if not parts:
            return 0, 0, Batch(1, 1, 0)
        size = training.get("per_device_train_batch_size", 8)
        by_length = training.get("train_sampling_strategy") == "group_by_length"
        data = [self._lengths_of(name) for name in settings.data]
        rows = sum(lengths.rows for lengths in data)
        batches = [
            list(lengths.packs(size, packed) if packed else lengths.batches(size, by_length)) for lengths in data
        ]
        samples = _samples(
            shared_rows(rows, getattr(settings, "share", 1.0)),
            1 if packed else size * training.get("gradient_accumulation_steps", 1),
            settings.epochs,
        )
        cost = batch_cost(model, parts, any(training.get(name) for name in CHECKPOINTING))
        # Each source is so much of an epoch, and a row of it costs so much.
        macs = sum(
            samples / rows * lengths.rows * sum(cost(_shapes(*batch)) for batch in its) / len(lengths.tokens)
            for lengths, its in zip(data, batches, strict=True)
        )
        return samples, round(macs), max((Batch(*batch) for its in batches for batch in its), key=_positions)

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


def _positions(batch: Batch) -> int:
    return batch.rows * batch.length


def _samples(rows: int, batch: int, epochs: float) -> int:
    """Rows that a Trainer takes, which rounds the steps of a training up."""
    return rows_of_steps(math.ceil(epochs * math.ceil(rows / batch)), rows, batch) if rows else 0


def _shapes(rows: int, length: int, images: int) -> dict[str, torch.Tensor]:
    """A batch of which only the shapes count."""
    batch = {"input_ids": torch.empty(rows, length, device="meta")}
    return batch | ({"pixel_values": torch.empty(images, 1, device="meta")} if images else {})
