"""Runs that are compared: read, and refused where their figures do not belong on one curve."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_chain.errors import HfChainError, shortened
from hf_chain.methods.chain.comparison.tree import seed_of
from hf_chain.runs.ledger import FamilyRecord, read_family
from hf_chain.tasks import find_paradigm

TOKENIZER = Path("processor", "tokenizer.json")
SPEED = ("splits", "batch_size")
"""Of the `evaluation` section: what changes no figure."""


def read_runs(folders: Sequence[str | Path]) -> list[FamilyRecord]:
    """The ledgers of runs; a folder that is named twice counts once.

    Args:
        folders (`Sequence[str | Path]`): Folders of runs.

    Raises:
        HfChainError: when a folder has no ledger or a damaged one, or its run has not begun.
    """
    runs = [read_family(folder) for folder in {Path(folder).resolve(): folder for folder in folders}.values()]
    for run in runs:
        if not run.recipe:
            raise HfChainError(f"{run.run_dir} has not begun, its ledger says no recipe: leave it out")
    return runs


def check_comparable(runs: Sequence[FamilyRecord], split: str) -> None:
    """Refuses runs whose figures differ for other reasons than their members.

    All have to have the same task, evaluation and evaluated split. Training data, and the tokenizer that may have been
    trained on them, can depend on the seed, and have to be the same for runs of one seed.

    Raises:
        HfChainError: naming two runs and what differs.
    """
    first: dict[tuple[Any, ...], tuple[FamilyRecord, Any]] = {}
    for run in runs:
        for seed, what, value in _identity(run, split):
            other, before = first.setdefault((seed, what), (run, value))
            if before != value:
                raise HfChainError(
                    f"{other.run_dir} and {run.run_dir} do not compare: {what} is {shortened(before)} in one and "
                    f"{shortened(value)} in the other; compare runs that have the same"
                )


def _identity(run: FamilyRecord, split: str) -> Iterator[tuple[int | None, str, Any]]:
    """Seed, for what need only be the same for runs of one seed, what it is, and its value, where that is known."""
    recipe, data = run.recipe, run.recipe.get("data") or {}
    yield None, "task", recipe.get("task", "contrastive")
    evaluation = recipe.get("evaluation") or {}
    yield None, "evaluation", {name: value for name, value in sorted(evaluation.items()) if name not in SPEED}
    if "row_tokens" in data:
        yield None, "data.row_tokens", data["row_tokens"]
    if split in run.data:
        yield None, f"the {split} data", run.data[split]
    if "train" in run.data:
        # How many of them are drawn may be what makes a twin's curve.
        drawn = f" for max_train_samples={most}" if (most := data.get("max_train_samples")) else ""
        yield seed_of(run), f"the training data{drawn}", run.data["train"]
    tokenizer = recipe.get("tokenizer") or {}
    if "vocab_size" in tokenizer and not tokenizer.get("name_or_path"):
        yield seed_of(run), "tokenizer.vocab_size", tokenizer["vocab_size"]
    if (run.run_dir / TOKENIZER).is_file():
        yield seed_of(run), "the tokenizer", _words(run.run_dir / TOKENIZER)


def _words(path: Path) -> str:
    import hashlib

    try:
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise HfChainError(f"{path} is no tokenizer: restore it, or remove it to leave it uncompared") from error
    return hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()[:16]


def choose_metric(runs: Sequence[FamilyRecord], split: str, metric: str | None) -> str:
    """The metric to compare by.

    Args:
        runs (`Sequence[FamilyRecord]`): The runs.
        split (`str`): The split.
        metric (`str`, *optional*): What is asked for; `None` takes the main one of the task.

    Raises:
        HfChainError: when it was measured for no member on that split.
    """
    known = [record.metrics_after for run in runs for record in run.members]
    measured = dict.fromkeys(name for splits in known for name in splits.get(split, {}))
    wanted = (metric,) if metric else find_paradigm(runs[0].recipe.get("task", "contrastive")).primary_metrics
    for name in wanted:
        if name in measured:
            return name
    if not measured:
        splits = ", ".join(dict.fromkeys(name for splits in known for name in splits))
        raise HfChainError(f"no member was measured on {split} yet: choose --split of {splits or 'what comes'}")
    raise HfChainError(f"{' or '.join(wanted)} was not measured on {split}: choose --metric of {', '.join(measured)}")
