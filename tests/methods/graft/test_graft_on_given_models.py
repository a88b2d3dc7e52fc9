"""A graft of a target and an encoder that exist, on a stream of LLaVA-style conversations, with LoRA at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.methods.graft.record import graft_record
from hf_chain.methods.graft.runner import run_graft
from hf_chain.runs.ledger import read_family
from support.graft_recipes import planned_then_run, streamed_graft_values

ROWS = 24


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the run."""
    folder = tmp_path_factory.mktemp("given")
    stages: list[dict[str, Any]] = [
        {"name": "encoder", "decoder": "surrogate", "parts": {"adapter": 1e-3, "translator": 1e-3}, "epochs": 2},
        {"name": "graft", "decoder": "target"},
        {"name": "lora", "decoder": "target", "parts": {"lora": 1e-2}, "training": {"lora": {"r": 2}}},
    ]
    values = streamed_graft_values(folder, ROWS, stages)
    return run_graft(GraftRecipe.model_validate(values))


def test_an_epoch_of_a_stream_is_as_long_as_it_says(run_dir: Path) -> None:
    family = read_family(run_dir)
    assert [record.name for record in family.members] == ["surrogate", "encoder", "graft", "lora"]
    assert [family.member(name).samples for name in ("encoder", "lora")] == [2 * ROWS, ROWS]
    assert all(record.status == "saved" for record in family.members)


def test_lora_is_in_the_weights_that_are_saved_and_were_asked(run_dir: Path) -> None:
    before, after = (load_file(run_dir / name / "model.safetensors") for name in ("03-graft", "04-lora"))
    assert before.keys() == after.keys()
    # Under its usual name it would be applied to them once more.
    assert not (run_dir / "04-lora" / "lora").exists()
    target = AutoModelForCausalLM.from_pretrained(run_dir.parents[1] / "target")
    merged = PeftModel.from_pretrained(target, run_dir / "04-lora" / "merged_lora").merge_and_unload().state_dict()
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert changed and all(name.startswith("language_model.") for name in changed)
    for name, value in merged.items():
        torch.testing.assert_close(after[f"language_model.{name}"], value)


def test_the_calibration_takes_conversations_about_images(run_dir: Path) -> None:
    report = json.loads((run_dir / "01-surrogate" / "translator.json").read_text())
    assert report["method"] == "closed_form" and report["fits"][0]["error_after"] <= report["fits"][0]["error_before"]


def test_a_recipe_without_a_surrogate_is_planned_trained_and_told(tmp_path: Path) -> None:
    stages = [
        {"name": "join", "decoder": "target", "parts": {"adapter": 1e-3}},
        {"name": "full", "decoder": "target", "parts": {"adapter": 1e-3, "decoder": 1e-3}},
    ]
    values = streamed_graft_values(tmp_path, 8, stages)
    plan, run_dir = planned_then_run(tmp_path, lambda folder: GraftRecipe.model_validate(values))
    assert plan.surrogate is None and [stage.name for stage in plan.stages] == ["join", "full"]
    family = read_family(run_dir)
    assert [(record.name, record.status) for record in family.members] == [("join", "saved"), ("full", "saved")]
    assert family.finished and sorted(path.name for path in run_dir.glob("0?-*")) == ["01-join", "02-full"]
    # Nothing was grafted, and of stages that follow each other the last one is asked.
    assert [stage.title for stage in graft_record(family).steps] == ["full on the target"]
    assert [bool(record.metrics_after) for record in family.members] == [False, True]
    told = (run_dir / "report" / "graft.md").read_text()
    assert "full on the target" in told and "Counted: every stage, and" in told
