"""Trains a family of models, small to large.

    accelerate launch examples/chain_pretrain.py [--config recipe.yaml] [flags]

Without `--config` it trains three CLIPs on rendered scenes, which need no download; `stories.yaml` beside it trains
three language models. `hf-chain run recipe.yaml` does
the same. See `--help` for the flags and docs/recipes.md for what a recipe can say.
"""

from pathlib import Path

from transformers import HfArgumentParser

from hf_chain.cli import exit_cleanly
from hf_chain.commands.run import RunArguments, launch


def main() -> None:
    """Reads the flags and runs the recipe."""
    parser = HfArgumentParser(RunArguments, description=__doc__)
    parser.set_defaults(config=str(Path(__file__).with_name("recipes") / "scenes.yaml"))
    next(action for action in parser._actions if action.dest == "config").required = False
    launch(*parser.parse_args_into_dataclasses())


if __name__ == "__main__":
    exit_cleanly(main)
