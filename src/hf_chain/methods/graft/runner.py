"""A graft at work: what the runner asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hf_chain.methods.context import Step
from hf_chain.methods.graft.card.stage_card import write_graft_card
from hf_chain.methods.graft.context import GraftContext
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.encoder_source import encoder_source, member_of_chain
from hf_chain.methods.graft.recipe import GraftRecipe, GraftStageSettings
from hf_chain.methods.graft.report.sheet import graft_sheet
from hf_chain.methods.graft.surrogate_stage import SurrogateStage
from hf_chain.methods.graft.target_stage import TargetStage
from hf_chain.methods.graft.validation import check_graft, check_rows
from hf_chain.methods.graft.vlm_stage import VLMStage
from hf_chain.methods.runner import Method, run_method
from hf_chain.report import Sheet
from hf_chain.runs.environment import check_disk, is_main_process
from hf_chain.runs.ledger import FamilyRecord, Ledger, read_family
from hf_chain.runs.resume import check_finished_data, check_same_data, fingerprint_models


def run_graft(recipe: GraftRecipe) -> Path:
    """Walks the stages of a recipe, or what is left of them.

    Killed anywhere, the same call goes on, and ends with the same weights.

    Args:
        recipe (`GraftRecipe`): the recipe.

    Returns:
        `Path`: the folder of the run.

    Raises:
        HfChainError: when the recipe, the data or the machine does not allow the run; and at its end, when everything
            is saved but could not be pushed.
    """
    return run_method(Graft.of(recipe, is_main_process()))


@dataclass
class Graft(Method):
    """Cuts a surrogate, trains an encoder on it, and joins the encoder with the target."""

    context: GraftContext
    _encoder: str = field(init=False, default="")
    _rows_are_checked: bool = field(init=False, default=False)

    cards_tell_outcome = True

    @classmethod
    def of(cls, recipe: GraftRecipe, main_process: bool) -> Graft:
        """The graft of a recipe, in a process that writes, or in one that only reads."""
        conversations = Conversations(recipe, main_process)
        return cls(GraftContext(recipe, Ledger(recipe.run_dir), main_process, write_graft_card, conversations))

    def check(self, finished: bool) -> None:
        """Checks that the run can be written; what is left is checked with the data."""
        check_disk(self.context.recipe.run_dir, 0)

    def prepare(self, begun: FamilyRecord) -> None:
        """Checks what is left of the recipe, and trains the encoder where its chain has none."""
        context, recipe = self.context, self.context.recipe
        if context.main_process:
            check_graft(recipe, context.conversations, list(context.saved_steps()))
        self._encoder = encoder_source(recipe)
        if context.main_process:
            models = {"encoder": self._encoder, "target": recipe.target.name_or_path}
            data = context.conversations.fingerprints() | fingerprint_models(models)
            check_same_data(begun, data)
            self.note_start(begun, plan={}, encoder=member_of_chain(recipe, self._encoder), data=data)

    def steps(self) -> Iterator[Step]:
        """Target and surrogate where there are any, then the stages of the graft and of its baseline."""
        context, recipe = self.context, self.context.recipe
        if recipe.target.new is not None:
            yield TargetStage(context, recipe.target.new)
        if recipe.needs_surrogate:
            yield SurrogateStage(context)
        for stages in (recipe.stages, recipe.baseline):
            before: GraftStageSettings | None = None
            for settings in stages:
                yield VLMStage(context, settings, before, self._encoder)
                before = settings

    def before(self, step: Step) -> None:
        """Checks the rows of all stages once the target is there, before anything is built on it."""
        if self.context.main_process and not self._rows_are_checked and not isinstance(step, TargetStage):
            check_rows(self.context, self._encoder)
            self._rows_are_checked = True

    def look_after(self, begun: FamilyRecord) -> None:
        """Compares the data."""
        check_finished_data(begun, self.context.conversations.fingerprints)

    def sheet(self) -> Sheet:
        """What the report of the graft shows."""
        return graft_sheet(read_family(self.context.recipe.run_dir))
