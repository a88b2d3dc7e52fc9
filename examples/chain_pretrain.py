"""Trains a family of models, small to large.

    accelerate launch examples/chain_pretrain.py [--config recipe.yaml] [--control] [flags]

Without `--config` it trains two CLIPs on rendered scenes, which need no download; `stories.yaml` beside it trains
three language models. `hf-chain run recipe.yaml` does
the same. See `--help` for the flags and docs/recipes.md for what a recipe can say.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from accelerate import PartialState
from transformers import HfArgumentParser

from hf_chain.cli import exit_cleanly
from hf_chain.commands.report import write_report
from hf_chain.commands.run import RunArguments, launch


@dataclass
class ChainArguments(RunArguments):
    """Flags of a run, and one for a run with its control."""

    control: bool = field(
        default=False, metadata={"help": "Afterwards do what --continued does, and report both together."}
    )


def main() -> None:
    """Reads the flags and runs the recipe."""
    parser = HfArgumentParser(ChainArguments, description=__doc__)
    parser.set_defaults(config=str(Path(__file__).with_name("recipes") / "scenes.yaml"))
    next(action for action in parser._actions if action.dest == "config").required = False
    (arguments,) = parser.parse_args_into_dataclasses()
    run_dir = launch(arguments)
    if arguments.control:
        launch(replace(arguments, continued=True))
        if PartialState().is_main_process:
            write_report(run_dir)


if __name__ == "__main__":
    exit_cleanly(main)
