"""The command line: `hf-chain plan | run | grow | convert | eval | push | report | compare | surrogate | graft …`.

Rooms are imported inside the commands, so that `--help` starts neither torch nor the network.
"""

from __future__ import annotations

import sys

import typer

from hf_chain.cli.exits import exit_cleanly
from hf_chain.cli.families import compare, convert, grow, push, report
from hf_chain.cli.grafts import chat, export, graft, surrogate
from hf_chain.cli.recipes import evaluate, plan, run

__all__ = ["app", "exit_cleanly", "main"]

app = typer.Typer(
    help="Train something small first and hand its knowledge on.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (plan, run, grow, convert, evaluate, push, report, compare, surrogate, graft, export, chat):
    app.command("eval" if command is evaluate else command.__name__)(command)


def main() -> None:
    """Entry point of `hf-chain`."""
    exit_cleanly(_command, resumes=sys.argv[1:2] == ["run"])


def _command() -> None:
    # Not in its standalone mode typer leaves errors to us, and returns the status it would exit with.
    status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    if status == 130:
        raise KeyboardInterrupt
    if status:
        sys.exit(status)
