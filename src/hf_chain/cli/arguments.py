"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.")]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/scenes.")]
NewFolder = Annotated[Path, typer.Argument(help="Folder of the result, which must not exist yet.")]
GraftedModel = Annotated[str, typer.Argument(help="Folder or Hub name of a grafted model.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Recipe value to replace, such as members.small.epochs=4. Repeatable."),
]
