"""What `hf-chain run` and `examples/chain_pretrain.py` share: flags over a recipe, then the runner."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from hf_chain.stages.recipe import Recipe, load_recipe


@dataclass
class RunArguments:
    """Flags of a run; each stands over the recipe."""

    config: str = field(metadata={"help": "The recipe, a YAML file."})
    set: list[str] = field(
        default_factory=list, metadata={"help": "Recipe values to replace, such as members.small.epochs=4."}
    )
    output_dir: str | None = field(default=None, metadata={"help": "Folder of all runs."})
    seed: int | None = field(default=None, metadata={"help": "Seed of weights, data order and growth."})
    independent: bool = field(default=False, metadata={"help": "Train every member from scratch: the baseline."})
    push_to_hub: bool = field(default=False, metadata={"help": "Push every member to a repository of its own."})
    hub_prefix: str | None = field(default=None, metadata={"help": "Start of the repository names: user/family."})

    def recipe(self) -> Recipe:
        """The recipe with the flags applied.

        Raises:
            HfChainError: when the recipe or a flag does not fit.
        """
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
        recipe = load_recipe(self.config, overrides)
        return recipe.as_independent() if self.independent else recipe


def launch(arguments: RunArguments) -> Path:
    """Runs a recipe and returns the folder of the run."""
    from hf_chain.stages.runner import run

    return run(arguments.recipe())
