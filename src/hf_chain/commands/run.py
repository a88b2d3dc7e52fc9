"""What `hf-chain run` and the scripts in `examples/` share: flags over a recipe, then its runner."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_chain.commands.methods import CHAIN, GRAFT, MethodCommands, method_of
from hf_chain.errors import HfChainError
from hf_chain.runs.recipe_file import read_values

if TYPE_CHECKING:
    from hf_chain.methods.chain.chain_recipe import ChainRecipe
    from hf_chain.methods.graft.recipe import GraftRecipe

CONTROLS = ("independent", "continued", "straight")
"""Flags that run something else than the recipe says, which it is compared with."""
VALIDATED_SHARE = 2
"""Per cent of the conversations of `--dataset` that judged stages are asked."""


@dataclass
class RecipeArguments:
    """Flags over any recipe."""

    config: str = field(metadata={"help": "The recipe, a YAML file."})
    set: list[str] = field(
        default_factory=list,
        metadata={"help": "Recipe values to replace, such as members.small.epochs=4. Repeatable.", "action": "extend"},
    )
    output_dir: str | None = field(default=None, metadata={"help": "Folder of all runs."})
    seed: int | None = field(default=None, metadata={"help": "Seed of weights, data order and growth."})
    push_to_hub: bool = field(default=False, metadata={"help": "Push every result to a repository of its own."})
    hub_prefix: str | None = field(default=None, metadata={"help": "Start of the repository names: user/family."})

    def overrides(self) -> list[str]:
        """The flags as values to replace; single flags win over `--set`."""
        overrides = list(self.set)
        # Quoted as JSON, which is YAML: a folder called 2024 is a text.
        if self.output_dir is not None:
            overrides.append(f"output_dir={json.dumps(self.output_dir)}")
        if self.seed is not None:
            overrides.append(f"seed={self.seed}")
        if self.hub_prefix is not None:
            overrides.append(f"hub.prefix={json.dumps(self.hub_prefix)}")
        if self.push_to_hub:
            overrides.append("hub.push=true")
        return overrides


@dataclass
class RunArguments(RecipeArguments):
    """Flags of a run; each stands over the recipe, which may be that of a chain or of a graft."""

    independent: bool = field(default=False, metadata={"help": "Train every member from scratch: the baseline."})

    continued: bool = field(
        default=False, metadata={"help": "Train the first member on for the MACs of the others: the control."}
    )

    straight: bool = field(
        default=False, metadata={"help": "Train a graft's parts on the target, without a surrogate: the control."}
    )

    @property
    def method(self) -> MethodCommands[Any]:
        """The method of the recipe."""
        return method_of(read_values(self.config, self.overrides()))

    def recipe(self) -> ChainRecipe | GraftRecipe:
        """The recipe with the flags applied.

        Raises:
            HfChainError: when the recipe or a flag does not fit.
        """
        recipe = self.method.load(self.config, self.overrides())
        controls = [name for name in CONTROLS if getattr(self, name)]
        if len(controls) > 1:
            raise HfChainError(f"--{controls[0]} and --{controls[1]} are two controls: give one at a time")
        return getattr(self.method, controls[0])(recipe) if controls else recipe

    def chain_recipe(self, flag: str) -> ChainRecipe:
        """The recipe, which has to be a chain's.

        Args:
            flag (`str`): what is for chains alone.

        Raises:
            HfChainError: when it is a graft's, or does not fit.
        """
        recipe: Any = self.recipe()
        if self.method is not CHAIN:
            raise HfChainError(f"{flag} is for chains, and {self.config} is the recipe of a graft: leave it out")
        return recipe


@dataclass
class GraftArguments(RecipeArguments):
    """Flags of a graft; each stands over the recipe."""

    method: ClassVar[MethodCommands[Any]] = GRAFT

    target: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub name of the language model. Its cut is found by two_segment, unless --set "
            "surrogate.replaced names one."
        },
    )
    encoder: str | None = field(
        default=None, metadata={"help": "Folder or Hub name of the vision encoder, or the recipe of a chain (.yaml)."}
    )
    dataset: str | None = field(
        default=None,
        metadata={
            "help": "Conversations about images in place of all data: a LLaVA-style JSON file, a folder or a Hub "
            f"name. {VALIDATED_SHARE} %% of them are held out."
        },
    )

    def recipe(self) -> GraftRecipe:
        """The recipe with the flags applied.

        Raises:
            HfChainError: when the recipe or a flag does not fit.
        """
        return GRAFT.load(self.config, [*self._parts(), *self.overrides()])

    def _parts(self) -> list[str]:
        overrides = []
        if self.target is not None:
            # A cut belongs to its target.
            overrides += [_replace("target", {"name_or_path": self.target}), "surrogate.replaced=two_segment"]
        if self.encoder is not None:
            kind = "chain" if self.encoder.endswith((".yaml", ".yml")) else "name_or_path"
            overrides.append(_replace("encoder", {kind: self.encoder}))
        if self.dataset is not None:
            held_out = f"{100 - VALIDATED_SHARE}%"
            source = {
                "source": self.dataset,
                "train_split": f"train[:{held_out}]",
                "validation_split": f"train[{held_out}:]",
            }
            overrides += self._all_on("images", source)
        return overrides

    def _all_on(self, name: str, source: dict[str, str]) -> list[str]:
        """Every stage, the calibration and the evaluation on one source."""
        values = read_values(self.config, self.set)
        if self.target is None and (values.get("target") or {}).get("new"):
            raise HfChainError(
                f"--dataset stands for all data, and {self.config} trains its own target on other data: give --target "
                "too"
            )
        overrides = [_replace("data", {name: source}), f"evaluation.data=[{name}]", "surrogate.calibration.data=null"]
        # A data set has no other splits than those that are cut out of it here.
        overrides.append("evaluation.splits=[validation]")
        for section in ("stages", "baseline"):
            for stage in values.get(section) or []:
                # What is not a stage with a name is refused when the recipe is checked.
                if isinstance(stage, dict) and "name" in stage:
                    overrides.append(f"{section}.{stage['name']}.data=[{name}]")
        return overrides


def launch(arguments: RunArguments | GraftArguments) -> Path:
    """Runs a recipe and returns the folder of the run."""
    return arguments.method.run(arguments.recipe())


def _replace(section: str, value: dict) -> str:
    return f"{section}={json.dumps(value)}"
