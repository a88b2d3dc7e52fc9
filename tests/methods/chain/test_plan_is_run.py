"""The plan counts what the run does: for members and twins alike, image by image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import CLIPConfig, CLIPModel

from hf_chain.data import build_processor, train_tokenizer
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import FamilyRecord, read_family
from support.recipes import tiny_recipe

CASES: dict[str, dict[str, Any]] = {
    # 256 images: two batches of 96, and 64 images that are dropped.
    "short batches, dropped tokens, cached features": {
        "epochs": 1.5,
        "training__per_device_train_batch_size": 96,
        "training__image_token_keep": 0.5,
        "training__unmasked_tail": 0.25,
        "training__micro_batch_size": 48,
    },
    "an early teacher, recomputed activations, fewer questions": {
        "training__feature_loss_until": 0.3,
        "training__gradient_checkpointing": True,
        "evaluation__max_samples": 7,
        "data__test_splits": ["test"],
    },
    "a cached teacher": {"cache_teacher_features": True, "epochs": 2},
}


def check(family: FamilyRecord) -> None:
    """Compares every member with its row of the plan."""
    for row, member in zip(family.plan["members"], family.members, strict=True):
        assert member.samples == row["samples"]
        assert member.training_macs["student"] == row["student_macs"]
        assert member.training_macs["teacher"] == row["teacher_macs"]
        # Texts are evaluated at their own lengths, up to the context's that the plan takes.
        assert 0.3 * row["evaluation_macs"] < member.evaluation_macs <= row["evaluation_macs"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_plan_is_what_the_run_counts(case: str, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, members=2, **CASES[case])
    family = read_family(run(recipe))
    check(family)
    if "short batches" not in case:
        return
    twins = read_family(run(recipe.as_independent()))
    check(twins)
    alone = [row["independent_training_macs"] for row in family.plan["members"]]
    assert [twin.training_macs["total"] for twin in twins.members] == alone


@pytest.mark.slow
def test_a_published_teacher_is_planned(tmp_path: Path) -> None:
    published = tmp_path / "published"
    tokenizer = train_tokenizer(["a red circle", "a blue square"], 520)
    build_processor(tokenizer, 32).save_pretrained(published)
    tower = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = tower | {"vocab_size": len(tokenizer), "max_position_embeddings": 40, "eos_token_id": 519}
    config = CLIPConfig(
        vision_config=tower | {"image_size": 32, "patch_size": 16, "hidden_act": "gelu"},
        text_config=text | {"hidden_act": "gelu"},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(published)
    changes = {"predecessor": str(published), "tokenizer__name_or_path": str(published)}
    family = read_family(run(tiny_recipe(tmp_path / "runs", members=1, evaluation__max_samples=8, **changes)))
    assert family.members[0].training_macs["teacher"] > 0
    check(family)


@pytest.mark.slow
@pytest.mark.plots
def test_a_short_training_has_a_curve(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, members=1)
    del recipe.training["logging_steps"]
    family = read_family(run(recipe))
    log = json.loads((family.run_dir / "01-tiny" / "training_log.json").read_text())
    assert [entry["step"] for entry in log if "contrastive_loss" in entry] == list(range(1, 9))
    assert (family.run_dir / "report" / "loss.png").exists()
