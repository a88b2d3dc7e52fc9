"""What the training benchmarks share: runs of one recipe that differ in a few settings."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hf_chain.commands.compare import compare_runs
from hf_chain.files import write_bytes, write_json, write_text
from hf_chain.methods.chain.comparison.table import to_markdown
from hf_chain.methods.chain.family_data import PROCESSOR_FOLDER
from hf_chain.methods.chain.recipe import load_recipe
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import LEDGER_NAME, FamilyRecord, Ledger, from_line, read_family, to_line
from hf_chain.runs.resume import RunRecipe

ROOT = Path(__file__).resolve().parents[1]


def shown_recipe(family: FamilyRecord) -> dict[str, Any]:
    """The recipe of a run without the folder it was in, which means nothing elsewhere."""
    return {name: value for name, value in family.recipe.items() if name != "output_dir"}


def machine_line(environment: dict[str, Any]) -> str:
    """Hardware, threads and versions in a sentence each, for the end of a page."""
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    return f"Hardware: {environment['hardware']}, {environment['threads']} thread(s). {versions}."


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
        first, folder = recipe.members[0].name, recipe.folder_name(0)
        take_over(first_member_of, recipe, [first], [folder, PROCESSOR_FOLDER])
    run(recipe)
    return read_family(recipe.run_dir)


def take_over(source: Path, recipe: RunRecipe, members: Sequence[str], folders: Sequence[str]) -> None:
    """Begins a run with finished members of another: the same seed, data and settings give the same weights.

    Args:
        source (`Path`): the other run.
        recipe (`RunRecipe`): that of the new run; nothing happens where it has begun already.
        members (`Sequence[str]`): members, or stages of a graft, whose ledger lines are copied.
        folders (`Sequence[str]`): folders of the run to copy.
    """
    run_dir = recipe.run_dir
    if run_dir.exists():
        return
    begun = read_family(source)
    start = {"event": "run_started", "time": begun.started, "recipe": recipe.model_dump(mode="json")}
    start |= {"plan": begun.plan, "environment": begun.environment}
    staging = run_dir.with_name(f".{run_dir.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    for part in folders:
        shutil.copytree(source / part, staging / part)
    entries = [start, *(entry for entry in Ledger(source).entries() if entry.get("member") in members)]
    lines = [json.dumps(entry) for entry in entries]
    (staging / "ledger.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    staging.rename(run_dir)


BRANCH = 0.15
"""Share of all training of a size that delivers it."""


def stage(
    name: str, shape: dict[str, Any], epochs: float, before: dict[str, Any] | None = None, total: float | None = None
) -> dict[str, Any]:
    """A member of a recipe of trunks that begins from scratch, or from the trunk of another.

    The branch of a trunk that is trained on is a larger share of its own steps, so that it is the same of them all.

    Args:
        name (`str`): its name.
        shape (`dict`): its size, as recipes give it.
        epochs (`float`): its own training.
        before (`dict`, *optional*): the member that it grows from, or is trained on from where shapes are the same.
        total (`float`, *optional*): all epochs of its size, where it is trained on.
    """
    training: dict[str, Any] = {"warmup_steps": 100} if before is None else {}
    if total is not None:
        training = {"trunk_decay": round(min(0.5, BRANCH * total / epochs), 4)}
    own = {"name": name, **shape, "epochs": round(epochs, 5), "grown_from": before and before["name"]}
    return own | {"training": training}


def twin_curve(name: str, shape: dict[str, Any], epochs: Sequence[float]) -> list[dict[str, Any]]:
    """Members of one size, each the one before trained on: the curve of that size alone.

    Args:
        name (`str`): what their names begin with.
        shape (`dict`): their size, as recipes give it.
        epochs (`Sequence[float]`): of all training up to each point, ascending.
    """
    members = [stage(f"{name}-{epochs[0]:g}", shape, epochs[0])]
    for earlier, later in zip(epochs, epochs[1:], strict=False):
        members.append(stage(f"{name}-{later:g}", shape, later - earlier, members[-1], later))
    return members


def keep_ledger(run_dir: Path, page: Path) -> None:
    """Puts the ledger of a run where a page is made from, without the folder that it was run in.

    Args:
        run_dir (`Path`): the run.
        page (`Path`): without its suffix; the ledgers go to the folder of that name.
    """
    folder = page / "ledgers" / run_dir.name
    folder.mkdir(parents=True, exist_ok=True)
    runs = re.compile(rf"^{re.escape(str(run_dir.parent))}(?=/|$)")
    entries = [from_line(line)[0] for line in (run_dir / LEDGER_NAME).read_bytes().splitlines()]
    write_bytes(folder / LEDGER_NAME, b"".join(to_line(_without_machine(entry, runs)) for entry in entries))


def _without_machine(value: Any, runs: re.Pattern[str]) -> Any:
    """Values in which the folder of all runs is called `runs`, wherever it was."""
    if isinstance(value, dict):
        return {name: _without_machine(one, runs) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_machine(one, runs) for one in value]
    return runs.sub("runs", value) if isinstance(value, str) else value


def write_comparison(page: Path, introduction: str, shown: Sequence[Path], parts: Sequence[str] = ()) -> None:
    """Writes a page, its figures and its plot from the ledgers that were kept.

    Args:
        page (`Path`): without its suffix; the ledgers are in the folder of that name.
        introduction (`str`): what the page begins with.
        shown (`Sequence[Path]`): ledgers that the page compares; the figures are of all.
        parts (`Sequence[str]`): what follows the comparison.
    """
    ledgers = sorted(page.glob("ledgers/*"))
    with TemporaryDirectory() as folder:
        found = compare_runs(shown, output=folder)
        write_bytes(page.with_suffix(".png"), Path(folder, "compare.png").read_bytes())
    write_json(page.with_suffix(".json"), compare_runs(ledgers).to_json())
    plot = f"![Quality against MACs]({page.name}.png)"
    end = machine_line(read_family(ledgers[0]).environment)
    text = [introduction, plot, to_markdown(found), *parts, end]
    write_text(page.with_suffix(".md"), "\n\n".join(part.strip() for part in text if part) + "\n")
