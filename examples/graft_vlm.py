"""Trains a vision encoder on a surrogate of a language model and grafts it onto the whole one.

    accelerate launch examples/graft_vlm.py [--config recipe.yaml] [--target NAME] [--encoder NAME] [--dataset NAME]

Without flags it makes everything itself on rendered scenes, which need no download: the language model, the encoder,
the surrogate, the graft and the baseline. `hf-chain run recipe.yaml` does the same. With `--target` and no `--config`
it takes the published three stages. See `--help` for the flags and docs/graft_recipes.md for what a recipe can say.
"""

from pathlib import Path

from transformers import HfArgumentParser

from hf_chain.cli import exit_cleanly
from hf_chain.commands.run import GraftArguments, launch

RECIPES = Path(__file__).with_name("recipes")


def main() -> None:
    """Reads the flags and runs the recipe."""
    parser = HfArgumentParser(GraftArguments, description=__doc__)
    next(action for action in parser._actions if action.dest == "config").required = False
    (arguments,) = parser.parse_args_into_dataclasses()
    if arguments.config is None:
        own = arguments.target is not None
        arguments.config = str(RECIPES / ("graft_llama3.2_3b.yaml" if own else "graft_scenes.yaml"))
    launch(arguments)


if __name__ == "__main__":
    exit_cleanly(main)
