"""Arguments that several commands take, and the command as it was typed."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hf_chain.files import check_path


def home(path: Any) -> Any:
    """Expands `~` where the shell has not, as in quotes."""
    if path is None:
        return None
    check_path(path)
    return type(path)(os.path.expanduser(path))


def homes(paths: list[Any] | None) -> list[Any]:
    """The same of several."""
    return [home(path) for path in paths or []]


RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", callback=home)]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/scenes.", callback=home)]
NewFolder = Annotated[Path, typer.Argument(help="Folder of the result, which must not exist yet.", callback=home)]
GraftedModel = Annotated[str, typer.Argument(help="Folder or Hub name of a grafted model.", callback=home)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Recipe value to replace, such as members.small.epochs=4. Repeatable."),
]


def typed_command() -> str:
    """`hf-chain` with the words that were typed; of an absolute path only the last part is given away."""
    return shlex.join(["hf-chain", *map(_public, sys.argv[1:])])


def _public(word: str) -> str:
    from hf_chain.hub.card import public_path

    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + public_path(value)
