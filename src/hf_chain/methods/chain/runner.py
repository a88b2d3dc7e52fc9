"""A chain at work: what the runner asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformers.utils import logging

from hf_chain.cost import plan_table
from hf_chain.distillation.cache import remove_damaged
from hf_chain.methods.chain.card import write_member_card
from hf_chain.methods.chain.family_data import FamilyData, data_size, fingerprints, load_family_data, store_processor
from hf_chain.methods.chain.member import CACHE_FOLDER, MemberStage
from hf_chain.methods.chain.planning import family_cost
from hf_chain.methods.chain.recipe import Recipe
from hf_chain.methods.chain.report.sheet import chain_sheet
from hf_chain.methods.chain.validation import check_recipe, warn_of_idle_training
from hf_chain.methods.context import RunContext
from hf_chain.methods.runner import Method, run_method
from hf_chain.report import Sheet
from hf_chain.runs.environment import is_main_process
from hf_chain.runs.ledger import FamilyRecord, Ledger
from hf_chain.runs.resume import check_finished_data

logger = logging.get_logger(__name__)


def run(recipe: Recipe) -> Path:
    """Trains the family of a recipe, or what is left of it.

    Killed anywhere, the same call goes on, and ends with the same weights.

    Args:
        recipe (`Recipe`): the recipe.

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

    context: RunContext[Recipe]
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
            cost = family_cost(recipe, data_size(recipe, self._data))
            warn_of_idle_training(recipe, cost)
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
