"""Wrong and odd inputs, a table a file, each with what ought to happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import processes  # noqa: F401  # Makes the tests' own modules importable.

from support.changes import changed

BASE = "base"
"""In the folder of every case: the models and runs of `cases.base`."""


@dataclass(frozen=True)
class Case:
    """An input, the command that meets it, and how that has to end.

    Args:
        group (`str`): kind of input.
        name (`str`): what is odd about it.
        expects (`str`): what may happen, with `/` between: `refused` in one line, bad rows `dropped` with a reason,
            `warned`, read `right`.
        words (`str`): regular expression that the line, the reason or the warning matches.
        command (`tuple[str]`): arguments of `hf-chain`, in the case's folder.
        write (`Callable`, *optional*): writes what the command reads into the folder, or replaces the command: what
            it returns is run in its place.
        check (`Callable`, *optional*): raises where what was read is not right.
        typed (`bytes`): what is typed at the keyboard.
        faults (`tuple`): arguments of `HubServer.fail`, for a Hub of the case's own.
        early (`bool`): whether a refusal has to come before anything is trained.
        variables (`dict`): of the environment.
        unless (`str`): regular expression that nothing that is said may match.
    """

    group: str
    name: str
    expects: str
    words: str = ""
    command: tuple[str, ...] = ("run", "recipe.yaml")
    write: Callable[[Path], Any] | None = None
    check: Callable[[Path], None] | None = None
    typed: bytes = b""
    faults: tuple[tuple[Any, ...], ...] | None = None
    early: bool = True
    variables: dict[str, str] = field(default_factory=dict)
    unless: str = ""

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


def all_cases() -> list[Case]:
    """Every case of every table."""
    from cases import chat, command_lines, hub, images, models, python, recipes, rows, templates, tokenizers, training

    tables = (recipes, training, rows, images, tokenizers, chat, templates, models, command_lines, hub, python)
    return [case for table in tables for case in table.cases()]


def chain_recipe(changes: dict[str, Any], scenes: bool = True) -> Callable[[Path], None]:
    """Writes the recipe of a chain of two members and two steps each, with changes."""

    def write(folder: Path) -> None:
        from support.recipes import tiny_values, write_recipe

        values = tiny_values(Path("runs"), members=2)
        values["training"] |= {"per_device_train_batch_size": 8}
        values["evaluation"] = {"max_samples": 8, "batch_size": 8}
        if scenes:
            values["data"] = {
                "scenes": {"train": 16, "validation": 8, "test": 4, "compositional": 4, "image_size": 32},
                "test_splits": [],
                "prompt_templates": "simple",
            }
        write_recipe(folder / "recipe.yaml", changed(values, changes))

    return write


def graft_recipe(changes: dict[str, Any]) -> Callable[[Path], None]:
    """Writes the recipe of a graft of given models, with one stage of two steps on the target, with changes."""

    def write(folder: Path) -> None:
        from support.recipes import write_recipe

        scenes = {"train": 16, "validation": 4, "test": 4, "compositional": 4, "image_size": 32}
        values = {
            "name": "graft",
            "output_dir": "runs",
            "target": {"name_or_path": f"{BASE}/target", "attn_implementation": "eager"},
            "encoder": {"name_or_path": f"{BASE}/tower"},
            "data": {"images": {"source": "scenes", "scenes": scenes, "test_splits": []}},
            "stages": [{"name": "join", "decoder": "target", "parts": {"adapter": 1e-3}}],
            "training": {"per_device_train_batch_size": 8, "bf16": False, "disable_tqdm": True, "logging_steps": 1},
            "evaluation": {"max_samples": 2, "max_new_tokens": 2, "splits": ["validation"]},
        }
        write_recipe(folder / "recipe.yaml", changed(values, changes))

    return write
