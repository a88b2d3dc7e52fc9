"""A graft whose recipe evaluates captions beside questions: metrics, answers, cost and report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature

from hf_chain.commands.methods import GRAFT
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.evaluation import ask
from hf_chain.methods.graft.headline import load_grafted
from hf_chain.methods.graft.plan import GraftPlan
from hf_chain.methods.graft.planning import plan_graft
from hf_chain.methods.graft.recipe import GraftRecipe, load_graft_recipe
from hf_chain.runs.ledger import read_family
from support.graft_recipes import given_graft_values, planned_then_run
from support.grafted_parts import photos
from support.recipes import write_recipe

pytestmark = pytest.mark.slow
LONG = [
    # Longer than any caption may be: a random model ends none of its own, so the plan can say how long they get.
    ["a large red circle and two small blue squares on a plain white background. " * 3, "a red circle"],
    ["three green stars and nothing else in the whole picture, as far as one can see. " * 3, "green stars"],
    ["four yellow triangles in a row from the left to the right of a dark picture. " * 3, "triangles"],
]
CAPTIONS = [[caption.strip() for caption in captions] for captions in LONG]
QUESTIONS, DESCRIBED = "images/validation", "captioned/validation"


def recipe_in(folder: Path) -> GraftRecipe:
    """An adapter on the surrogate and the graft, asked about scenes, and describing pictures."""
    features = Features({"image": ImageFeature(), "captions": List(Value("string"))})
    rows = Dataset.from_dict({"image": photos(len(CAPTIONS)), "captions": CAPTIONS}, features=features)
    for split in ("train", "validation"):
        rows.to_parquet(folder / "captioned" / f"{split}.parquet")
    values = given_graft_values(
        folder,
        stages=[
            {"name": "adapter", "decoder": "surrogate", "parts": {"adapter": 1e-3}, "epochs": 0.5},
            {"name": "graft", "decoder": "target"},
        ],
        data__captioned={
            "source": "captions",
            "images": {"source": str(folder / "captioned"), "caption_column": "captions"},
        },
        evaluation={"data": ["images", "captioned"], "max_new_tokens": 4},
    )
    return load_graft_recipe(write_recipe(folder / "recipe.yaml", values))


@pytest.fixture(scope="module")
def planned_and_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[GraftPlan, Path]:
    """The plan, made before the run, and the folder of the run."""
    return planned_then_run(tmp_path_factory.mktemp("captions"), recipe_in)


def test_captions_are_scored_beside_questions(planned_and_run: tuple[GraftPlan, Path]) -> None:
    _, run_dir = planned_and_run
    for name in ("adapter", "graft"):
        metrics = read_family(run_dir).member(name).metrics_after
        assert "exact_match" in metrics[QUESTIONS] and "cider_d" not in metrics[QUESTIONS]
        assert metrics[DESCRIBED].keys() == {"cider_d", "caption_words"}


def test_the_answers_keep_the_captions(planned_and_run: tuple[GraftPlan, Path]) -> None:
    answers = json.loads((planned_and_run[1] / "03-graft" / "answers.json").read_text())
    assert [answer["expected"] for answer in answers[DESCRIBED]] == CAPTIONS
    assert all(answer["answer"] and answer["correct"] is None for answer in answers[DESCRIBED])
    assert all(answer["correct"] is not None for answer in answers[QUESTIONS])


def test_the_planned_cost_of_captions_is_that_of_the_run(planned_and_run: tuple[GraftPlan, Path]) -> None:
    plan, run_dir = planned_and_run
    recipe = recipe_in(run_dir.parents[1])
    model, processor = load_grafted(str(run_dir / "03-graft"))
    planned, spent = {}, {}
    for data in recipe.evaluation.data:
        evaluation = recipe.evaluation.model_copy(update={"data": [data]})
        alone = recipe.model_copy(update={"evaluation": evaluation})
        planned[data] = next(stage for stage in plan_graft(alone).stages if stage.name == "graft").evaluation_macs
        questions = Conversations(alone, main_process=False).questions(processor)
        spent[data] = sum(found.macs for found in ask(model, processor, questions, evaluation).values())
    assert planned["captioned"] == pytest.approx(spent["captioned"], rel=0.03)
    whole = next(stage for stage in plan.stages if stage.name == "graft").evaluation_macs
    assert whole == pytest.approx(sum(planned.values()), abs=1)
    assert read_family(run_dir).member("graft").evaluation_macs == sum(spent.values())


def test_eval_scores_captions_too(planned_and_run: tuple[GraftPlan, Path]) -> None:
    _, run_dir = planned_and_run
    found = GRAFT.evaluate(str(run_dir / "03-graft"), recipe_in(run_dir.parents[1]))
    measured = read_family(run_dir).member("graft").metrics_after
    assert found.keys() == measured.keys()
    assert found[DESCRIBED] == pytest.approx(measured[DESCRIBED])


def test_the_report_has_both(planned_and_run: tuple[GraftPlan, Path]) -> None:
    report = (planned_and_run[1] / "report" / "graft.md").read_text()
    assert f"## Results on {QUESTIONS}" in report and f"## Metrics on {DESCRIBED}\n" in report
    assert "CIDEr-D × 100" in report and "words of a caption" in report
