"""What the commands ask of a method, of a chain or of a graft; every answer imports what it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hf_chain.errors import HfChainError
from hf_chain.methods.graft.record import is_graft

if TYPE_CHECKING:
    from hf_chain.hub import CardWriter
    from hf_chain.methods.chain.chain_recipe import ChainRecipe
    from hf_chain.methods.graft.recipe import GraftRecipe
    from hf_chain.report import Sheet

AnyRecipe = TypeVar("AnyRecipe")
Metrics = dict[str, dict[str, float]]
"""Split to metric to value."""


class MethodCommands(ABC, Generic[AnyRecipe]):
    """One method, as `hf-chain plan`, `run`, `eval`, `push` and `report` know it."""

    @abstractmethod
    def load(self, path: str, overrides: Sequence[str]) -> AnyRecipe:
        """Reads a recipe.

        Raises:
            HfChainError: when the file or a value does not fit.
        """

    @abstractmethod
    def independent(self, recipe: AnyRecipe) -> AnyRecipe:
        """The recipe with every member trained from scratch.

        Raises:
            HfChainError: when the method has no members to train so.
        """

    @abstractmethod
    def continued(self, recipe: AnyRecipe) -> AnyRecipe:
        """The control of the recipe: its first member trained on for the MACs of the others.

        Raises:
            HfChainError: when the method has no members, or the first one is not there yet.
        """

    @abstractmethod
    def straight(self, recipe: AnyRecipe) -> AnyRecipe:
        """The control of the recipe: what it trains on a surrogate, trained straight on the target.

        Raises:
            HfChainError: when the method has no surrogate, or nothing is trained on one.
        """

    @abstractmethod
    def run(self, recipe: AnyRecipe) -> Path:
        """Walks a run, or what is left of it, and returns its folder."""

    @abstractmethod
    def costs(self, recipe: AnyRecipe, tflops_per_second: float | None) -> tuple[dict[str, Any], str, str]:
        """What a recipe costs: as a script wants it, as Markdown for people, and the memory on one device.

        Raises:
            HfChainError: when the recipe cannot be run as it is, or data or configurations cannot be read.
        """

    @abstractmethod
    def evaluate(self, name: str, recipe: AnyRecipe) -> Metrics:
        """Evaluates a model on the splits and the data that a recipe names.

        Args:
            name (`str`): Folder or Hub name of a model with its processor.
            recipe: Its `data` and `evaluation` sections are used.

        Raises:
            HfChainError: when the model or the data cannot be loaded, or too many questions cannot be asked.
        """

    @property
    @abstractmethod
    def write_card(self) -> CardWriter:
        """How the card of a step is written."""

    @abstractmethod
    def sheet(self, run_dir: Path, baseline: Path | None) -> Sheet:
        """What the report of a run shows.

        Raises:
            HfChainError: when a file of the run is damaged, or the method takes no baseline of another run.
        """

    def plan(self, recipe: AnyRecipe, tflops_per_second: float | None = None) -> tuple[dict[str, Any], str]:
        """Says what a recipe costs, before anything is trained.

        Args:
            recipe: A recipe of the method.
            tflops_per_second (`float`, *optional*): Sustained throughput; adds hours.

        Returns:
            The plan as a script wants it, and as Markdown for people.

        Raises:
            HfChainError: when the recipe cannot be run as it is, or data or configurations cannot be read.
        """
        values, table, memory = self.costs(recipe, tflops_per_second)
        return values, f"{table}\n\nMemory on one device\n\n{memory}"


class ChainCommands(MethodCommands["ChainRecipe"]):
    """A chain; its plan starts no torch."""

    def load(self, path: str, overrides: Sequence[str]) -> ChainRecipe:
        from hf_chain.methods.chain.recipe import load_recipe

        return load_recipe(path, overrides)

    def independent(self, recipe: ChainRecipe) -> ChainRecipe:
        return recipe.as_independent()

    def continued(self, recipe: ChainRecipe) -> ChainRecipe:
        from hf_chain.methods.chain.continued import continued

        return continued(recipe)

    def straight(self, recipe: ChainRecipe) -> ChainRecipe:
        raise HfChainError(f"--straight is for grafts, and {recipe.name} is a chain: leave the flag out")

    def run(self, recipe: ChainRecipe) -> Path:
        from hf_chain.methods.chain.runner import run

        return run(recipe)

    def costs(self, recipe: ChainRecipe, tflops_per_second: float | None) -> tuple[dict[str, Any], str, str]:
        from hf_chain.cost import plan_table
        from hf_chain.methods.chain.planning import check_growth, family_cost, memory_plan

        cost = family_cost(recipe)
        check_growth(recipe)
        return cost.to_json(), plan_table(cost, tflops_per_second), memory_plan(recipe)

    def evaluate(self, name: str, recipe: ChainRecipe) -> Metrics:
        from hf_chain.methods.chain.family_data import evaluation_data

        paradigm = recipe.paradigm
        model, processor = paradigm.load_with_processor(name)
        splits = evaluation_data(recipe)
        options = paradigm.evaluation_options(splits)
        return {split: paradigm.evaluate(model, processor, rows, **options).metrics for split, rows in splits.items()}

    @property
    def write_card(self) -> CardWriter:
        from hf_chain.methods.chain.card import write_member_card

        return write_member_card

    def sheet(self, run_dir: Path, baseline: Path | None) -> Sheet:
        from hf_chain.methods.chain.report.sheet import chain_sheet

        return chain_sheet(run_dir, baseline)


class GraftCommands(MethodCommands["GraftRecipe"]):
    """A graft, whose baseline is in its own run."""

    def load(self, path: str, overrides: Sequence[str]) -> GraftRecipe:
        from hf_chain.methods.graft.recipe import load_graft_recipe

        return load_graft_recipe(path, overrides)

    def independent(self, recipe: GraftRecipe) -> GraftRecipe:
        raise HfChainError(
            f"--independent is for chains, and {recipe.name} is a graft, whose baseline is in its baseline section: "
            "leave the flag out"
        )

    def continued(self, recipe: GraftRecipe) -> GraftRecipe:
        raise HfChainError(f"--continued is for chains, and {recipe.name} is a graft: leave the flag out")

    def straight(self, recipe: GraftRecipe) -> GraftRecipe:
        from hf_chain.methods.graft.straight import straight

        return straight(recipe)

    def run(self, recipe: GraftRecipe) -> Path:
        from hf_chain.methods.graft.runner import run_graft

        return run_graft(recipe)

    def costs(self, recipe: GraftRecipe, tflops_per_second: float | None) -> tuple[dict[str, Any], str, str]:
        from hf_chain.cost import memory_table
        from hf_chain.methods.graft.plan import graft_table
        from hf_chain.methods.graft.planning import plan_graft

        plan = plan_graft(recipe)
        return plan.to_json(), graft_table(plan, tflops_per_second), memory_table(plan.memory)

    def evaluate(self, name: str, recipe: GraftRecipe) -> Metrics:
        from hf_chain.methods.graft.data import Conversations
        from hf_chain.methods.graft.evaluation import ask
        from hf_chain.methods.graft.headline import load_grafted
        from hf_chain.runs.environment import check_launch

        check_launch()
        model, processor = load_grafted(name)
        questions = Conversations(recipe, main_process=False).questions(processor)
        return {split: found.metrics for split, found in ask(model, processor, questions, recipe.evaluation).items()}

    @property
    def write_card(self) -> CardWriter:
        from hf_chain.methods.graft.card.stage_card import write_graft_card

        return write_graft_card

    def sheet(self, run_dir: Path, baseline: Path | None) -> Sheet:
        from hf_chain.methods.graft.report.sheet import graft_sheet
        from hf_chain.runs.ledger import read_family

        if baseline is not None:
            raise HfChainError(f"{run_dir} is a graft, whose baseline is in its own run: leave {baseline} out")
        return graft_sheet(read_family(run_dir))


CHAIN, GRAFT = ChainCommands(), GraftCommands()


def method_of(recipe: Mapping[str, Any]) -> MethodCommands[Any]:
    """The method of a recipe, by its values, from its file or a ledger."""
    return GRAFT if is_graft(recipe) else CHAIN
