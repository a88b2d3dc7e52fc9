"""Arguments that several commands take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer


def home(path: Any) -> Any:
    """Expands `~` where the shell has not, as in quotes."""
    return path if path is None else type(path)(os.path.expanduser(path))


RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", callback=home)]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/scenes.", callback=home)]
NewFolder = Annotated[Path, typer.Argument(help="Folder of the result, which must not exist yet.", callback=home)]
GraftedModel = Annotated[str, typer.Argument(help="Folder or Hub name of a grafted model.", callback=home)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Recipe value to replace, such as members.small.epochs=4. Repeatable."),
]
