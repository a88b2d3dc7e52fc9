"""Checks of the whole recipe of a graft before anything is trained, so that a long run does not end at its last stage.

What a recipe says by itself is checked when it is read; here it meets the models, the data and the machine.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from datasets import IterableDataset
from transformers import AutoModelForCausalLM

from hf_chain.cost.memory import ADAMW_MOMENTS, FLOAT32
from hf_chain.data.chat.template import ChatTemplate
from hf_chain.errors import HfChainError
from hf_chain.grafting.shards import open_checkpoint
from hf_chain.hub import check_login
from hf_chain.stages.environment import is_distributed
from hf_chain.stages.graft.blueprint import Blueprint
from hf_chain.stages.graft.encoder_source import finished_encoder
from hf_chain.stages.graft.materials import Conversations
from hf_chain.stages.graft.recipe import GraftRecipe, GraftStageSettings
from hf_chain.stages.graft.surrogate_stage import NAME as SURROGATE
from hf_chain.stages.validation import check_disk, check_trackers

KEPT_CHECKPOINTS = 2


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
    stages = [stage for stage in (*recipe.stages, *recipe.baseline) if stage.name not in finished]
    if not stages:
        return
    blueprint = Blueprint(recipe)
    _check_target(blueprint)
    _check_shards(finished_encoder(recipe))
    for stage in stages:
        blueprint.parts(stage)
        check_trackers(recipe.training_of(stage))
    check_disk(recipe.run_dir, _bytes_on_disk(blueprint, stages))
    _check_data(recipe, conversations, stages)
    if recipe.needs_surrogate and SURROGATE not in finished:
        _check_calibration(recipe, conversations)
        _check_translator(recipe)


def _check_target(blueprint: Blueprint) -> None:
    """The target can be read, talks in a chat template, and has the kernel and the layers that are asked for."""
    recipe = blueprint.recipe
    target, kernel = blueprint.text("target"), recipe.target.attn_implementation
    _check_shards(recipe.target.name_or_path, recipe.target.revision)
    if blueprint.tokenizer is not None:
        ChatTemplate(blueprint.tokenizer)
    if recipe.needs_surrogate:
        blueprint.text("surrogate")
    with torch.device("meta"):
        try:
            AutoModelForCausalLM.from_config(target, attn_implementation=kernel)
        except (ValueError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            raise HfChainError(
                f"target.attn_implementation is {kernel!r}, which does not work here: {reason}"
            ) from error


def _check_shards(name: str | None, revision: str | None = None) -> None:
    """The weights of a folder are whole; those of the Hub are left where they are."""
    if name is not None:
        checkpoint = open_checkpoint(name, revision)
        if checkpoint.revision is None:
            checkpoint.tensors(checkpoint.shards())


def _bytes_on_disk(blueprint: Blueprint, stages: Sequence[GraftStageSettings]) -> int:
    """What the stages leave, and the checkpoints of the largest one."""
    number, saved, checkpoint = blueprint.weight_bytes, [], 0
    for stage in stages:
        model, parts = blueprint.parts(stage)
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
    conversations.evaluation_rows()


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
