"""The rows of a graft are read before its surrogate is cut, and once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hf_chain.data.chat import quality
from hf_chain.errors import HfChainError
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.methods.graft.runner import run_graft
from hf_chain.models.grafted_vlm import from_parts
from hf_chain.runs.ledger import Ledger, read_family
from hf_chain.runs.resume import check_same_recipe
from support.graft_recipes import streamed_graft_values
from support.grafted_parts import image_processor, tiny_tower

STAGES: list[dict[str, Any]] = [
    {"name": "encoder", "decoder": "surrogate", "parts": {"adapter": 1e-3, "encoder.last:8": 1e-3}},
    {"name": "graft", "decoder": "target"},
    {"name": "decoder", "decoder": "target", "parts": {"decoder": 1e-3}, "special_tokens_in_loss": False},
]


def values_in(folder: Path, streaming: bool = False, **data: Any) -> dict[str, Any]:
    values = streamed_graft_values(folder, 24, STAGES)
    values["data"]["images"] |= {"streaming": streaming} | data
    return values


def test_the_stages_find_what_was_read_before_the_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned, cut = [], []
    scan = quality._scan

    def noted(rows: Any, encoder: Any, name: str, most: int) -> Any:
        scanned.append(name)
        cut.extend(tmp_path.glob("runs/tiny/*surrogate"))
        return scan(rows, encoder, name, most)

    monkeypatch.setattr(quality, "_scan", noted)
    run_dir = run_graft(GraftRecipe.model_validate(values_in(tmp_path)))
    # The last stage has other labels, by which an answer may be lost that another stage can learn.
    assert scanned == ["images", "images", "images validation"] and not cut
    assert read_family(run_dir).finished


@pytest.mark.parametrize("streaming", [False, True])
def test_a_wrong_folder_of_images_is_named_before_the_cut(tmp_path: Path, streaming: bool) -> None:
    values = values_in(tmp_path, streaming, image_folder=str(tmp_path / "elsewhere"))
    with pytest.raises(HfChainError, match=r"elsewhere/red\.png\): there is no such image: image_folder names the"):
        run_graft(GraftRecipe.model_validate(values))
    assert not list(tmp_path.glob("runs/tiny/*surrogate"))


def test_rows_that_only_a_later_stage_trains_on_are_read_too(tmp_path: Path) -> None:
    talks = [
        {"image": "gone.png", "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "a"}]}
    ]
    (tmp_path / "later.json").write_text(json.dumps(talks))
    values = values_in(tmp_path)
    values["data"]["later"] = {"source": str(tmp_path / "later.json"), "validation_split": None}
    values["stages"] = [*STAGES[:2], STAGES[2] | {"data": ["later"]}]
    with pytest.raises(HfChainError, match=r"1 of 1 rows of later are bad .*gone\.png"):
        run_graft(GraftRecipe.model_validate(values))
    assert not list(tmp_path.glob("runs/tiny/*surrogate"))


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [({}, "auto", True), ({"bf16": True}, "auto", True), ({"bf16": "auto"}, True, False)],
)
def test_a_run_may_follow_the_advice_on_bfloat16(tmp_path: Path, before: Any, after: Any, allowed: bool) -> None:
    values = values_in(tmp_path) | {"training": before}
    recipe = GraftRecipe.model_validate(values)
    ledger = Ledger(recipe.run_dir)
    ledger.append("run_started", recipe=recipe.model_dump(mode="json"), plan={}, environment={})
    changed = GraftRecipe.model_validate(values | {"training": {"bf16": after}})
    family = read_family(recipe.run_dir)
    if allowed:
        check_same_recipe(changed, family)
        return
    with pytest.raises(HfChainError, match=r"was begun with training\.bf16='auto', the recipe now says True"):
        check_same_recipe(changed, family)


def test_a_question_that_nobody_answered_is_not_asked(tmp_path: Path) -> None:
    values = values_in(tmp_path, max_bad_share=1.0)
    talks = json.loads((tmp_path / "validation.json").read_text())
    talks[1]["conversations"].append({"from": "human", "value": "and then?"})
    (tmp_path / "validation.json").write_text(json.dumps(talks))
    recipe = GraftRecipe.model_validate(values)
    processor = from_parts(tiny_tower(), str(tmp_path / "target"), image_processor=image_processor())[1]
    (rows,) = Conversations(recipe).questions(processor).values()
    assert [messages[-1]["content"] for messages in rows["messages"]] == [f"it is {n}" for n in range(6)]
    assert all(isinstance(images[0], dict) for images in rows["images"])
