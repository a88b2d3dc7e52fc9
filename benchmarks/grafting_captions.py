"""Captions in the grafting benchmark: photographs that trained nothing, described by every model of a finished run."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_chain.evaluation.captioning import cider_d
from hf_chain.files import whole_folder, write_json
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.evaluation import ask
from hf_chain.methods.graft.headline import load_grafted
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.methods.graft.record import StageRecord, graft_record
from hf_chain.methods.graft.report.examples import save_pictures
from hf_chain.runs.ledger import read_family

FOLDER, PICTURES = "captions", "caption-pictures"
EXAMPLES = 4
"""Photographs that are shown with their captions, spread evenly over the split."""


def ask_captions(recipe: GraftRecipe) -> None:
    """Lets all models that a finished run is judged by describe the captioned pictures of its splits, each once.

    Rows of training are in none of these splits. Nothing happens where a recipe trains on no captioned pictures.

    Args:
        recipe (`GraftRecipe`): the run's.
    """
    trained = {name for stage in recipe.stages for name in stage.data}
    data = [name for name in recipe.data if name in trained and recipe.data[name].questions == "captions"]
    if not data:
        return
    asked = recipe.evaluation.model_copy(update={"data": data, "max_samples": None})
    for step in graft_record(read_family(recipe.run_dir)).steps:
        path = _path(recipe.run_dir, step)
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_json(path, describe(str(recipe.run_dir / step.record.folder), recipe, asked))


def describe(model_name: str, recipe: GraftRecipe, asked: Any) -> dict[str, Any]:
    """What a model says to the pictures of every split: metrics, captions, and what people say.

    The pictures that a page shows are kept in the run's folder.

    Args:
        model_name (`str`): folder of the model.
        recipe (`GraftRecipe`): of its run.
        asked (`AnswerSettings`): what it is asked.
    """
    model, processor = load_grafted(model_name)
    conversations = Conversations(recipe.model_copy(update={"evaluation": asked}), main_process=False)
    rows = conversations.questions(processor)
    found = {}
    for split, said in ask(model, processor, rows, asked).items():
        found[split] = {
            "metrics": said.metrics,
            "captions": [one.answer for one in said.answers],
            "people": [list(one.expected) for one in said.answers],
        }
        folder = recipe.run_dir / PICTURES / split.replace("/", "-")
        if not folder.exists():
            with whole_folder(folder) as unfinished:
                save_pictures(unfinished, rows[split].select(shown(len(rows[split]))))
    return found


def captions_of(run_dir: Path, step: StageRecord) -> dict[str, dict[str, Any]]:
    """What `ask_captions` left for a model: split -> `metrics`, `captions`, `people`; empty before it was asked."""
    path = _path(run_dir, step)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def caption_numbers(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Split -> metrics, with `cider_d_shifted`: the same captions, each judged by the people of the next picture."""
    return {
        split: {**said["metrics"], "cider_d_shifted": _mean(cider_d(said["captions"], _shifted(said["people"])))}
        for split, said in found.items()
    }


def people_score(found: dict[str, Any]) -> float:
    """CIDEr-D of what the first person says, judged by the others.

    Args:
        found (`dict`): a split, as `captions_of` gives it.
    """
    return _mean(cider_d([group[0] for group in found["people"]], [group[1:] for group in found["people"]]))


def shown(rows: int) -> list[int]:
    """Numbers of the rows that are shown, of so many."""
    return [number * rows // EXAMPLES for number in range(min(EXAMPLES, rows))]


def caption_pictures(run_dir: Path, split: str) -> list[Path]:
    """Files of the pictures of these rows."""
    return sorted((run_dir / PICTURES / split.replace("/", "-")).glob("*.png"))


def _shifted(groups: Sequence[Any]) -> list[Any]:
    return [*groups[1:], *groups[:1]]


def _mean(values: Sequence[float]) -> float:
    return statistics.mean(values)


def _path(run_dir: Path, step: StageRecord) -> Path:
    return run_dir / FOLDER / f"{step.name}.json"
