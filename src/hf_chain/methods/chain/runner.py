"""A chain at work: what the runner asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers.utils import logging

from hf_chain.cost import FamilyCost, plan_table
from hf_chain.distillation.cache import remove_damaged
from hf_chain.errors import HfChainError, reason
from hf_chain.growth.shapes import EXACT_IN_WIDTH, check_shapes
from hf_chain.hub import check_login, check_private
from hf_chain.methods.chain.card import write_member_card
from hf_chain.methods.chain.chain_recipe import ChainRecipe
from hf_chain.methods.chain.family_data import FamilyData, fingerprints, load_family_data, store_processor
from hf_chain.methods.chain.member import CACHE_FOLDER, MemberStage
from hf_chain.methods.chain.planning import check_growth, family_cost
from hf_chain.methods.chain.report.sheet import chain_sheet
from hf_chain.methods.chain.stopping import check_curves
from hf_chain.methods.context import RunContext
from hf_chain.methods.runner import Method, run_method
from hf_chain.report import Sheet
from hf_chain.runs.environment import check_disk, is_main_process
from hf_chain.runs.ledger import FamilyRecord, Ledger
from hf_chain.runs.resume import check_finished_data
from hf_chain.runs.training_checks import check_training_works, warn_of_no_learning
from hf_chain.trainer import ChainConfig

logger = logging.get_logger(__name__)


BYTES_PER_PARAMETER = 4 + 2 * 12
"""On disk at a time: the member, and two checkpoints with weights and both moments of AdamW, in float32."""

BYTES_PER_TRUNK_PARAMETER = 4 + 2 * 4
"""Weights and both moments, kept for successors."""


def check_recipe(recipe: ChainRecipe, cost: FamilyCost) -> None:
    """Checks what can be known from the recipe and the machine alone.

    Raises:
        HfChainError: when a member cannot grow from the one before it, the disk is too full, the run folder cannot be
            written, a kernel is not installed, or nobody is logged in although members are to be pushed.
    """
    check_growth(recipe)
    _check_kernels(recipe)
    if recipe.published is not None:
        _check_predecessor(recipe, recipe.published)
    recipe.paradigm.check_processor()
    for member, planned in zip(recipe.members, cost.members, strict=True):
        check_training_works(
            ChainConfig,
            {"task": recipe.task, **recipe.training_of(member)},
            f"members.{member.name}.training",
            planned.steps,
        )
    needed = BYTES_PER_PARAMETER * cost.largest.parameters + 4 * sum(member.parameters for member in cost.members)
    for member, planned in zip(recipe.members, cost.members, strict=True):
        if recipe.training_of(member).get("trunk_decay") is not None:
            needed += BYTES_PER_TRUNK_PARAMETER * planned.parameters
    check_disk(recipe.run_dir, needed)
    if recipe.hub.push:
        check_login(recipe.hub.prefix)
        check_private(recipe.hub, [member.name for member in recipe.members])


def warn_of_idle_training(recipe: ChainRecipe, cost: FamilyCost) -> None:
    """Warns of members that learn nothing, by their rate or by a warm-up without end."""
    for member, planned in zip(recipe.members, cost.members, strict=True):
        training = recipe.training_of(member)
        rates = [training.get("learning_rate", 5e-5)]
        warn_of_no_learning(f"members.{member.name}", rates, training.get("warmup_steps"), planned.steps)


def _check_predecessor(recipe: ChainRecipe, name: str) -> None:
    """Checks all of the predecessor but its vocabulary, which is compared with the tokenizer's once that is there."""
    member, old = recipe.members[0], recipe.paradigm.published_config(name)
    new = recipe.paradigm.checked_config(member)
    recipe.paradigm.check_predecessor(name, old, new)
    texts = (getattr(old, "text_config", old), getattr(new, "text_config", new))
    for token in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"):
        if hasattr(texts[0], token):
            setattr(texts[1], token, getattr(texts[0], token))
    try:
        check_shapes(old, new, keep_heads=recipe.operator_of(member) in EXACT_IN_WIDTH)
    except HfChainError as error:
        raise HfChainError(f"members.{member.name} cannot grow from predecessor {name}: {error}") from error


def _check_kernels(recipe: ChainRecipe) -> None:
    """Builds the first member without memory, as transformers knows only then which kernels there are."""
    with torch.device("meta"):
        try:
            recipe.paradigm.new(recipe.paradigm.checked_config(recipe.members[0]))
        except (ValueError, ImportError) as error:
            kernel = recipe.model.attn_implementation
            raise HfChainError(
                f"model.attn_implementation is {kernel!r}, which does not work here: {reason(error)}"
            ) from error


def run(recipe: ChainRecipe) -> Path:
    """Trains the family of a recipe, or what is left of it.

    Killed anywhere, the same call goes on, and ends with the same weights.

    Args:
        recipe (`ChainRecipe`): the recipe.

    Returns:
        `Path`: the folder of the run.

    Raises:
        HfChainError: when the recipe, the data or the machine does not allow the run; and at its end, when everything
            is saved but could not be pushed.
    """
    return run_method(Chain(RunContext(recipe, Ledger(recipe.run_dir), is_main_process(), write_member_card)))


@dataclass
class Chain(Method):
    """Trains the members of a family from small to large."""

    context: RunContext[ChainRecipe]
    _data: FamilyData = field(init=False, repr=False)

    def check(self, finished: bool) -> None:
        """Checks the whole recipe, unless nothing is left to do."""
        if not finished:
            check_recipe(self.context.recipe, family_cost(self.context.recipe))

    def prepare(self, begun: FamilyRecord) -> None:
        """Loads data and processor, and says what the family will cost."""
        recipe, main_process = self.context.recipe, self.context.main_process
        self._data = load_family_data(recipe, main_process, begun)
        if main_process:
            cost = family_cost(recipe, recipe.paradigm.size(self._data))
            warn_of_idle_training(recipe, cost)
            sizes = {member.name: member.parameters for member in cost.members}
            check_curves(recipe, sizes, self._data.fingerprints)
            logger.warning(f"{recipe.name}: the plan\n\n{plan_table(cost)}\n")
            self.note_start(begun, plan=cost.to_json(), data=self._data.fingerprints)

    def steps(self) -> Iterator[MemberStage]:
        """The members, smallest first."""
        for index in range(len(self.context.recipe.members)):
            yield MemberStage(self.context, index, self._data)

    def look_after(self, begun: FamilyRecord) -> None:
        """Compares the data, mends the processor and removes damaged features of teachers."""
        recipe = self.context.recipe
        check_finished_data(begun, lambda: fingerprints(recipe))
        store_processor(recipe)
        remove_damaged(recipe.run_dir / CACHE_FOLDER)

    def sheet(self) -> Sheet:
        """What the report of the family shows."""
        return chain_sheet(self.context.recipe.run_dir)
