"""What the steps of a run share, whichever method they belong to: recipe, ledger, folders, and what is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from hf_chain.files import write_text
from hf_chain.hub import CardWriter, HubSettings
from hf_chain.hub.card import public_recipe
from hf_chain.runs.ledger import TRUNKS_FOLDER, Ledger, MemberRecord, read_family
from hf_chain.runs.resume import RunRecipe
from hf_chain.runs.saved import check_saved, is_saved
from hf_chain.runs.training_run import CHECKPOINTS_FOLDER, TrackedTraining, remove_checkpoints


class MethodRecipe(RunRecipe, Protocol):
    """What the runner asks of a recipe."""

    @property
    def name(self) -> str:
        """Name of the run."""

    @property
    def hub(self) -> HubSettings:
        """Where results are pushed."""

    @property
    def training(self) -> dict[str, Any]:
        """Fields of all trainings."""

    @property
    def step_names(self) -> list[str]:
        """All steps in the order in which they are walked."""

    def training_of_step(self, name: str) -> Mapping[str, Any]:
        """Fields of the training of a step: the recipe's, then its own."""


class Step(Protocol):
    """One step: builds a model of what the step before left, trains parts of it, evaluates it and saves it."""

    @property
    def name(self) -> str:
        """Its name in recipe and ledger."""

    def run(self) -> None:
        """Does what is left to do; the result is the same wherever an earlier attempt ended."""


AnyRecipe = TypeVar("AnyRecipe", bound=MethodRecipe)


@dataclass
class RunContext(Generic[AnyRecipe]):
    """What all steps of a run share.

    Args:
        recipe (`MethodRecipe`): the recipe.
        ledger (`Ledger`): where the main process records what is done.
        main_process (`bool`): whether this process writes.
        write_card (`CardWriter`): how the method writes the card of a step.
    """

    recipe: AnyRecipe
    ledger: Ledger
    main_process: bool
    write_card: CardWriter

    @property
    def step_names(self) -> Sequence[str]:
        """All steps in the order in which they are walked."""
        return self.recipe.step_names

    def index(self, step: str) -> int:
        """Place of a step in that order, from 0."""
        return self.step_names.index(step)

    def folder(self, step: str) -> Path:
        """Where the result of a step is, such as `02-small`."""
        return self.recipe.run_dir / f"{self.index(step) + 1:02d}-{step}"

    def trunk(self, step: str) -> Path:
        """Where the trunk of a step is, from which others grow."""
        return self.recipe.run_dir / TRUNKS_FOLDER / self.folder(step).name

    def checkpoints(self, step: str) -> Path:
        """Where a step keeps its checkpoints while it is trained."""
        return self.recipe.run_dir / CHECKPOINTS_FOLDER / self.folder(step).name

    def remove_checkpoints(self, step: str) -> None:
        """Removes them once the result is saved; a kill in between leaves that to the next attempt."""
        if self.main_process:
            remove_checkpoints(self.checkpoints(step), self.tracked(step).folder)

    def tracked(self, step: str) -> TrackedTraining:
        """What trackers are told of a step."""
        recipe = self.recipe
        started = read_family(recipe.run_dir).started if self.main_process else ""
        return TrackedTraining(recipe.run_dir, step, recipe.training_of_step(step), started)

    def record(self, step: str) -> MemberRecord:
        """What the ledger knows of a step."""
        return read_family(self.recipe.run_dir).member(step)

    def is_saved(self, step: str) -> bool:
        """Whether a step is done. Other processes may ask before the main one has begun the ledger."""
        return self.ledger.path.exists() and is_saved(self.record(step), self.folder(step))

    def saved_steps(self) -> Iterator[str]:
        """The steps that are done."""
        return filter(self.is_saved, self.step_names)

    def check_saved(self, *steps: str) -> None:
        """Refuses steps whose folders are not what was saved; the main process reads them, before it builds on them.

        Raises:
            HfChainError: naming folder and file.
        """
        for step in steps if self.main_process else ():
            if step in self.step_names and self.is_saved(step):
                check_saved(self.record(step), self.folder(step))

    def note(self, event: str, step: str, **fields: Any) -> None:
        """Records an event of a step."""
        if self.main_process:
            self.ledger.append(event, step, **fields)

    def describe(self, step: str, folder: Path) -> None:
        """Writes recipe and card into the folder of a step that is done and about to be saved."""
        recipe = public_recipe(self.recipe.model_dump(mode="json", exclude_defaults=True))
        family = read_family(self.recipe.run_dir)
        write_text(folder / "recipe.yaml", recipe)
        self.write_card(folder, family, family.member(step), self.recipe.hub, recipe)
