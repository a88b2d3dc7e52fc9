"""Checks of the whole recipe of a graft before anything is trained, so that a long run does not end at its last stage.

What a recipe says by itself is checked when it is read; here it meets the models, the data and the machine.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from datasets import Dataset, IterableDataset
from transformers import AutoModelForCausalLM

from hf_chain.cost.steps import ADAMW_MOMENTS, FLOAT32
from hf_chain.data.chat.collator import ChatCollator
from hf_chain.data.chat.quality import check_chat
from hf_chain.data.chat.rows import FEATURES
from hf_chain.data.chat.template import ChatTemplate
from hf_chain.engine import check_rates_and_saving, read_deepspeed
from hf_chain.errors import HfChainError, reason
from hf_chain.grafting.shards import open_checkpoint
from hf_chain.grafting.translator.translator_config import TranslatorConfig
from hf_chain.hub import check_login, check_private
from hf_chain.loaded_weights import first_not_finite
from hf_chain.methods.graft.context import GraftContext
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.encoder_source import finished_encoder
from hf_chain.methods.graft.meta_models import MetaModels
from hf_chain.methods.graft.recipe import GraftRecipe, GraftStageSettings
from hf_chain.methods.graft.record import SURROGATE, TARGET
from hf_chain.models.grafted_vlm import GraftedVLMProcessor
from hf_chain.models.grafted_vlm.assembly import add_image_token, check_image_token, check_tokens, image_processor_of
from hf_chain.models.grafted_vlm.language_models import load_tokenizer
from hf_chain.runs.environment import check_disk, is_distributed, process_count
from hf_chain.runs.training_checks import check_training_works, warn_of_no_learning
from hf_chain.trainer.graft_config import GraftConfig

KEPT_CHECKPOINTS = 2
NOMINAL_STEPS = 1_000
"""Steps that schedules are tried with, before rows are counted."""


def check_graft(recipe: GraftRecipe, conversations: Conversations, finished: Collection[str] = ()) -> None:
    """Checks models, data and machine for the stages that are left.

    Args:
        recipe (`GraftRecipe`): the recipe.
        conversations (`Conversations`): its data, which are loaded here.
        finished (`Collection[str]`): names of the stages whose results are there.

    Raises:
        HfChainError: when target or encoder cannot be read or are of a family that is not known, when the cut does not
            fit, a part is in no model, a kernel or tracker is not there, the disk is too small or cannot be written,
            nobody is logged in although results are to be pushed, data are missing or too few, or several processes
            are to make a translator that is trained.
    """
    if recipe.hub.push:
        check_login(recipe.hub.prefix)
        check_private(recipe.hub, recipe.step_names)
    stages = [stage for stage in (*recipe.stages, *recipe.baseline) if stage.name not in finished]
    if not stages:
        return
    meta = MetaModels(recipe)
    _check_target(meta)
    _check_encoder(finished_encoder(recipe))
    for stage in stages:
        meta.parts(stage)
    _check_trainings(recipe, stages, finished)
    check_disk(recipe.run_dir, _bytes_on_disk(meta, stages))
    _check_data(recipe, conversations, stages)
    if recipe.needs_surrogate and SURROGATE not in finished:
        _check_calibration(recipe, conversations)
        _check_translator(recipe)


def _check_target(meta: MetaModels) -> None:
    """The target can be read, talks in a chat template, and has the kernel and the layers that are asked for."""
    recipe = meta.recipe
    target, kernel = meta.text("target"), recipe.target.attn_implementation
    _check_shards(recipe.target.name_or_path, recipe.target.revision)
    if meta.tokenizer is not None:
        ChatTemplate(meta.tokenizer)
        check_image_token(meta.tokenizer, recipe.model.image_token)
        check_tokens(meta.tokenizer, target.vocab_size, recipe.model.image_token)
    if recipe.needs_surrogate:
        meta.text("surrogate")
    with torch.device("meta"):
        try:
            AutoModelForCausalLM.from_config(target, attn_implementation=kernel)
        except (ValueError, ImportError) as error:
            raise HfChainError(
                f"target.attn_implementation is {kernel!r}, which does not work here: {reason(error)}"
            ) from error


def _check_trainings(recipe: GraftRecipe, stages: Sequence[GraftStageSettings], finished: Collection[str]) -> None:
    """Every training that is left is tried on a dummy."""
    for stage in stages:
        training = recipe.training_of(stage)
        if stage.parts:
            where = f"{stage.name}.training"
            check_training_works(GraftConfig, training | {"parts": stage.parts}, where, NOMINAL_STEPS)
            try:
                check_rates_and_saving(read_deepspeed(training.get("deepspeed")))
            except HfChainError as error:
                raise HfChainError(f"{where}: {error}") from error
    if recipe.target.new is not None and TARGET not in finished:
        values = recipe.target.new.training | {"parts": {"decoder": None}}
        check_training_works(GraftConfig, values, "target.new.training", NOMINAL_STEPS)
    if recipe.needs_surrogate and SURROGATE not in finished and recipe.surrogate.translator_training:
        values = {**recipe.surrogate.translator_training}
        check_training_works(TranslatorConfig, values, "surrogate.translator_training", NOMINAL_STEPS)


def _check_shards(name: str | None, revision: str | None = None) -> None:
    """The weights of a folder are whole; those of the Hub are left where they are."""
    if name is not None:
        checkpoint = open_checkpoint(name, revision)
        if checkpoint.revision is None:
            checkpoint.tensors(checkpoint.shards())


def _check_encoder(name: str | None) -> None:
    """As `_check_shards`; it is small enough to be read before the target is cut for it."""
    _check_shards(name)
    if name is not None and Path(name).is_dir() and (weight := first_not_finite(Path(name))):
        raise HfChainError(f"{weight} of {name} holds NaN or infinity: give an encoder with finite weights")


def _bytes_on_disk(meta: MetaModels, stages: Sequence[GraftStageSettings]) -> int:
    """What the stages leave, and the checkpoints of the largest one."""
    number, saved, checkpoint = meta.weight_bytes, [], 0
    for stage in stages:
        model, parts = meta.parts(stage)
        whole = model.num_parameters()
        trained = sum(parameter.numel() for part in parts for parameter in part.parameters.values())
        saved.append(number * (whole + trained))
        if trained:
            checkpoint = max(checkpoint, number * whole + (1 + ADAMW_MOMENTS) * FLOAT32 * trained)
    return sum(saved) + KEPT_CHECKPOINTS * checkpoint


def _check_data(recipe: GraftRecipe, conversations: Conversations, stages: Sequence[GraftStageSettings]) -> None:
    """Every source that is named is there, and has rows for what it is named for."""
    named = {name: f"stage {stage.name}" for stage in stages if stage.parts or stage.refit for name in stage.data}
    if new := recipe.target.new:
        named |= dict.fromkeys(new.data, "target.new")
        if "validation" not in conversations.splits(new.data[0]):
            raise HfChainError(f"data.{new.data[0]} has no validation split, which target.new is asked on: name one")
    for name, where in named.items():
        rows = conversations.splits(name)["train"]
        if not isinstance(rows, IterableDataset) and not len(rows):
            raise HfChainError(f"data.{name} has no conversation to train {where} on: check its source and split")
    for stage in stages:
        if stage.parts:
            _check_steps(recipe, conversations, stage)
    conversations.evaluation_rows()


def _check_steps(recipe: GraftRecipe, conversations: Conversations, stage: GraftStageSettings) -> None:
    """The stage has a step, and learns in it; counted before bad rows are dropped."""
    training = recipe.training_of(stage)
    default = training.get("learning_rate", 5e-5)
    rates = [default if rate is None else rate for rate in stage.parts.values()]
    steps = None
    # Nobody knows yet how many packs there are.
    if recipe.pack_tokens is None:
        rows = conversations.stream_length(stage.data)
        if rows is None:
            rows = sum(len(conversations.splits(name)["train"]) for name in stage.data)
        batch = training.get("per_device_train_batch_size", 8) * process_count()
        used = math.ceil(stage.share * rows)
        if training.get("dataloader_drop_last") and used < batch:
            raise HfChainError(
                f"stage {stage.name}: a batch has {batch} conversations and the data only {used}: lower "
                "per_device_train_batch_size, or leave dataloader_drop_last out"
            )
        steps = math.ceil(stage.epochs * stage.share * rows / (batch * training.get("gradient_accumulation_steps", 1)))
    warn_of_no_learning(f"stage {stage.name}", rates, training.get("warmup_steps"), steps)


def _check_calibration(recipe: GraftRecipe, conversations: Conversations) -> None:
    settings = recipe.surrogate.calibration
    name = settings.data or next(iter(recipe.data))
    rows = conversations.splits(name)["train"]
    needed = settings.translator_samples + 1
    if not isinstance(rows, IterableDataset) and len(rows) < needed:
        raise HfChainError(
            f"data.{name} has {len(rows)} conversations; surrogate.calibration.translator_samples takes"
            f" {settings.translator_samples} and measures on those after them: lower it"
        )


def _check_translator(recipe: GraftRecipe) -> None:
    """One process makes the surrogate, and a Trainer among several would wait for the others for ever."""
    methods = recipe.surrogate.translator
    if is_distributed() and any(method.startswith("train") for method in methods):
        raise HfChainError(
            f"surrogate.translator is {', '.join(methods)}, and one process trains it: start this recipe without a"
            " launcher until the surrogate is saved, then go on with as many processes as you like"
        )


STREAMED = 100
"""Rows of a stream that are looked at; nobody knows how many it has."""
MOST_BAD_OF_STREAM = 0.5
"""Share of them from which on something is wrong with all: so few say nothing about a few in a thousand."""


def check_rows(context: GraftContext, encoder: str) -> None:
    """Reads and encodes the rows of all stages that are left, as these will, so that bad ones end no run after hours.

    What is found is remembered: the stages do not read the rows again.

    Args:
        context (`GraftContext`): the run, whose target is there.
        encoder (`str`): folder or Hub name of the encoder.

    Raises:
        HfChainError: when too many rows are bad.
    """
    recipe, conversations = context.recipe, context.conversations
    stages = [stage for stage in (*recipe.stages, *recipe.baseline) if not context.is_saved(stage.name)]
    if not stages:
        return
    processor = _processor(context, encoder, stages[0])
    for stage in stages:
        if stage.refit is not None:
            conversations.prompts(stage.data, stage.refit, conversations.collator(processor))
        elif stage.parts and conversations.stream_length(stage.data) is not None:
            _check_stream(context, stage, conversations.collator(processor, stage))
        elif stage.parts:
            conversations.training_rows(stage.data, conversations.collator(processor, stage))
    if any(stage.name in recipe.judged for stage in stages):
        conversations.questions(processor)


def _processor(context: GraftContext, encoder: str, stage: GraftStageSettings) -> GraftedVLMProcessor:
    """The processor of all stages, before there is a model."""
    recipe = context.recipe
    tokenizer = load_tokenizer(context.target_source, revision=recipe.target.revision)
    add_image_token(tokenizer, recipe.model.image_token)
    model, _ = MetaModels(recipe).parts(stage)
    return GraftedVLMProcessor(
        image_processor_of(encoder),
        tokenizer,
        image_token=recipe.model.image_token,
        tokens_per_image=model.config.tokens_per_image,
    )


def _check_stream(context: GraftContext, stage: GraftStageSettings, collator: ChatCollator) -> None:
    (name,) = stage.data
    rows, settings = context.conversations.splits(name)["train"], context.recipe.data[name]
    if isinstance(rows, IterableDataset):
        check_chat(
            Dataset.from_list(list(rows.take(STREAMED)), features=FEATURES),
            collator.encoder,
            name=f"the first rows of {name}",
            max_bad_share=max(settings.max_bad_share, MOST_BAD_OF_STREAM),
            max_image_pixels=settings.max_image_pixels,
        )
