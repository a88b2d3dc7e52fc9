"""What the training benchmarks share: runs of one recipe that differ in a few settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from hf_chain.stages.family_data import PROCESSOR_FOLDER
from hf_chain.stages.ledger import FamilyRecord, Ledger, read_family
from hf_chain.stages.recipe import Recipe, load_recipe
from hf_chain.stages.runner import run

ROOT = Path(__file__).resolve().parents[1]


def run_variant(
    recipe_path: Path,
    name: str,
    overrides: Sequence[str],
    independent: bool = False,
    first_member_of: Path | None = None,
    members: int | None = None,
) -> FamilyRecord:
    """Runs a variant of a recipe, or what is left of it, and returns its record.

    Args:
        recipe_path (`Path`): the recipe.
        name (`str`): name of the variant's run.
        overrides (`Sequence[str]`): settings of the variant.
        independent (`bool`): train every member from scratch.
        first_member_of (`Path`, *optional*): a run with the same first member, which is taken over instead of being
            trained again; its cost still counts.
        members (`int`, *optional*): train only that many members.
    """
    recipe = load_recipe(recipe_path, overrides)
    recipe = recipe.as_independent() if independent else recipe
    recipe = recipe.model_copy(update={"name": name, "members": recipe.members[:members]})
    if first_member_of is not None:
        _take_over_first_member(first_member_of, recipe)
    run(recipe)
    return read_family(recipe.run_dir)


def _take_over_first_member(source: Path, recipe: Recipe) -> None:
    """Copies the first member and its ledger lines: the same seed, data and epochs give the same weights."""
    if recipe.run_dir.exists():
        return
    folder, first = recipe.folder_name(0), recipe.members[0].name
    staging = recipe.run_dir.with_name(f".{recipe.run_dir.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    for part in (folder, PROCESSOR_FOLDER):
        shutil.copytree(source / part, staging / part)
    lines = [json.dumps(entry) for entry in Ledger(source).entries() if entry.get("member") == first]
    (staging / "ledger.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    staging.rename(recipe.run_dir)
