"""The example on models and conversations that exist, and a graft that is killed again and again."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from hf_chain.runs.ledger import read_family
from support.graft_recipes import streamed_graft_values, tiny_graft_values
from support.kills import leftovers, run_killed, run_to_the_end, seconds_of_work
from support.recipes import REPOSITORY, write_recipe

pytestmark = pytest.mark.slow
ROWS = 100
STAGES = [
    {"name": "encoder", "decoder": "surrogate", "parts": {"adapter": 1e-3, "encoder.last:1": 1e-3}},
    {"name": "graft", "decoder": "target"},
    {"name": "decoder", "decoder": "target", "parts": {"lora": 1e-3}, "epochs": 0.5},
]


def test_target_encoder_and_dataset_of_the_flags_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of all that the recipe would make itself."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    streamed_graft_values(tmp_path, ROWS, [])
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_graft_values(tmp_path, stages=STAGES, baseline=[]))
    folders = {"target": "target", "encoder": "encoder", "dataset": "train.json"}
    flags = [part for flag, name in folders.items() for part in (f"--{flag}", str(tmp_path / name))]
    monkeypatch.setattr(sys, "argv", ["graft_vlm.py", "--config", str(recipe), *flags])
    runpy.run_path(str(REPOSITORY / "examples" / "graft_vlm.py"), run_name="__main__")
    family = read_family(tmp_path / "runs" / "tiny")
    assert [record.name for record in family.members] == ["surrogate", "encoder", "graft", "decoder"]
    assert family.finished and family.member("encoder").samples == 0.98 * ROWS
    assert family.member("surrogate").parent == str(tmp_path / "target")
    assert family.member("encoder").parent == str(tmp_path / "encoder")
    answers = json.loads((family.run_dir / "03-graft" / "answers.json").read_text())
    assert [answer["expected"] for answer in answers["validation"]] == [["it is 98"], ["it is 99"]]
    grafted = load_file(family.run_dir / "03-graft" / "model.safetensors")
    target = AutoModelForCausalLM.from_pretrained(tmp_path / "target")
    assert all(grafted[f"language_model.{name}"].equal(value) for name, value in target.named_parameters())
    AutoModelForImageTextToText.from_pretrained(family.run_dir / "04-decoder")


def test_a_graft_killed_at_random_moments_ends_with_the_same_weights(tmp_path: Path) -> None:
    recipes = {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        values = streamed_graft_values(tmp_path / name, 24, STAGES)
        values["training"] |= {"save_steps": 1, "per_device_train_batch_size": 2}
        recipes[name] = write_recipe(tmp_path / f"{name}.yaml", values)
    expected, found = (tmp_path / name / "runs" / "tiny" for name in recipes)
    run_to_the_end(recipes["whole"])
    # Early enough to hit it on a machine that is faster by now.
    hits = run_killed(recipes["killed"], found, kills=3, seed=0, seconds=0.6 * seconds_of_work(expected))
    assert hits
    for record in read_family(expected).members:
        weights, wanted = (load_file(run / record.folder / "model.safetensors") for run in (found, expected))
        assert weights.keys() == wanted.keys(), hits
        assert all(value.equal(wanted[name]) for name, value in weights.items()), (record.name, hits)
        again = read_family(found).member(record.name)
        assert (again.samples, again.training_macs) == (record.samples, record.training_macs), hits
    assert read_family(found).finished and not leftovers(found)
