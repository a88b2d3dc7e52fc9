"""What the stages of a graft share: the recipe, the ledger, the conversations and the folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_chain.files import write_text
from hf_chain.hub import write_graft_card
from hf_chain.stages.graft.materials import Conversations
from hf_chain.stages.graft.recipe import GraftRecipe
from hf_chain.stages.ledger import Ledger, MemberRecord, read_family
from hf_chain.stages.training_run import CHECKPOINTS_FOLDER, remove_checkpoints


@dataclass
class Workplace:
    """Args:
    recipe (`GraftRecipe`): the recipe.
    ledger (`Ledger`): where the main process records what is done.
    conversations (`Conversations`): the data.
    main_process (`bool`): whether this process writes.
    """

    recipe: GraftRecipe
    ledger: Ledger
    conversations: Conversations
    main_process: bool

    @property
    def stage_names(self) -> list[str]:
        """All stages in the order in which they are walked."""
        recipe = self.recipe
        names = ["target"] if recipe.target.new is not None else []
        names += ["surrogate"] if recipe.needs_surrogate else []
        return [*names, *(stage.name for stage in (*recipe.stages, *recipe.baseline))]

    def folder(self, stage: str) -> Path:
        """Where the result of a stage is, such as `02-surrogate`."""
        return self.recipe.run_dir / f"{self.stage_names.index(stage) + 1:02d}-{stage}"

    def checkpoints(self, stage: str) -> Path:
        """Where a stage keeps its checkpoints while it is trained."""
        return self.recipe.run_dir / CHECKPOINTS_FOLDER / self.folder(stage).name

    def remove_checkpoints(self, stage: str) -> None:
        """Removes them once the result is saved; a kill in between leaves that to the next attempt."""
        if self.main_process:
            remove_checkpoints(self.checkpoints(stage))

    def record(self, stage: str) -> MemberRecord:
        """What the ledger knows of a stage."""
        return read_family(self.recipe.run_dir).member(stage)

    def is_saved(self, stage: str) -> bool:
        """Whether a stage is done. Other processes may ask before the main one has begun the ledger."""
        done = self.ledger.path.exists() and self.record(stage).status == "saved"
        return done and (self.folder(stage) / "config.json").exists()

    def note(self, event: str, stage: str, **fields: Any) -> None:
        """Records an event of a stage."""
        if self.main_process:
            self.ledger.append(event, stage, **fields)

    def describe(self, stage: str, folder: Path) -> None:
        """Writes recipe and card into the folder of a stage that is done and about to be saved."""
        recipe, family = self.recipe.to_yaml(), read_family(self.recipe.run_dir)
        write_text(folder / "recipe.yaml", recipe)
        write_graft_card(folder, family, family.member(stage), self.recipe.hub, recipe)

    @property
    def target_source(self) -> str:
        """Folder or Hub name of the language model that the encoder is meant for."""
        return self.recipe.target.name_or_path or str(self.folder("target"))
