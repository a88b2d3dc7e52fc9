"""More questions than a run asks of its models: what the grafting benchmark judges them by, outside of their cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hf_chain.commands.methods import GRAFT
from hf_chain.files import write_json
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.methods.graft.record import StageRecord, graft_record
from hf_chain.runs.ledger import read_family

QUESTIONS = 4000
"""Of each split; a run asks a few hundred, which cost something and tell two points apart at best."""


def ask_more(recipe: GraftRecipe) -> None:
    """Asks all models that a finished run is judged by, each once.

    Args:
        recipe (`GraftRecipe`): the run's.
    """
    evaluation = recipe.evaluation.model_copy(update={"max_samples": QUESTIONS})
    for step in graft_record(read_family(recipe.run_dir)).steps:
        path = _path(recipe.run_dir, step)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            asked = recipe.model_copy(update={"evaluation": evaluation})
            write_json(path, GRAFT.evaluate(str(recipe.run_dir / step.record.folder), asked))


def metrics_of(run_dir: Path, step: StageRecord) -> dict[str, dict[str, Any]] | None:
    """What came out for a model: split -> metrics; `None` before it was asked."""
    path = _path(run_dir, step)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _path(run_dir: Path, step: StageRecord) -> Path:
    return run_dir / "questions" / f"{step.name}.json"
