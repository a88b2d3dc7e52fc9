"""A chain of masked autoencoders: what holds for CLIP holds for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForPreTraining

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.planning import check_growth, family_cost
from hf_chain.methods.chain.recipe import ChainRecipe, load_recipe, recipe_class
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import FamilyRecord, read_family
from hf_chain.runs.recipe_file import validated
from support.chains import run_interrupted, weights_of
from support.recipes import REPOSITORY

DECODER = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}


def masked_recipe(folder: Path, **changes: Any) -> ChainRecipe:
    """Two ViT-MAEs on scenes without their labels."""
    values = {
        "name": "tiny",
        "task": "masked_image",
        "family": "vit_mae",
        "output_dir": str(folder),
        "data": {
            "scenes": {"train": 128, "validation": 32, "test": 8, "compositional": 8, "image_size": 32},
            "test_splits": [],
        },
        "model": {"head_size": 8, "image_size": 32, "patch_size": 8, "decoder_intermediate_size": 32} | DECODER,
        "members": [
            {"name": "tiny", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 2},
            {"name": "small", "hidden_size": 32, "num_hidden_layers": 2, "epochs": 1},
        ],
        "training": {
            "per_device_train_batch_size": 32,
            "learning_rate": 5e-3,
            "adam_epsilon": 1e-6,
            "logging_steps": 1,
            "save_steps": 2,
            "disable_tqdm": True,
        },
    }
    values |= changes
    return validated(recipe_class(values), values, "recipe")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> FamilyRecord:
    return read_family(run(masked_recipe(tmp_path_factory.mktemp("masked"))))


def test_members_are_grown_trained_evaluated_and_told_of(family: FamilyRecord) -> None:
    tiny, small = family.members
    folder = family.run_dir / small.folder
    (after,), before = small.metrics_after.values(), small.metrics_before["validation"]
    assert after.keys() == {"reconstruction"} and after["reconstruction"] < before["reconstruction"]
    assert before["reconstruction"] == pytest.approx(tiny.metrics_after["validation"]["reconstruction"], rel=1e-4)
    for row, member in zip(family.plan["members"], family.members, strict=True):
        assert (member.samples, member.training_macs["student"]) == (row["samples"], row["student_macs"])
        assert (member.training_macs["teacher"], member.parameters) == (row["teacher_macs"], row["parameters"])
        assert member.evaluation_macs == row["evaluation_macs"]
    assert type(AutoModelForPreTraining.from_pretrained(folder)).__name__ == "ViTMAEForPreTraining"
    assert not list(folder.glob("*maps*"))
    card = (folder / "README.md").read_text()
    assert "is a masked autoencoder of the vit_mae family" in card and "Lower is better." in card


@pytest.mark.slow
def test_an_interrupted_chain_ends_with_the_same_weights(family: FamilyRecord, tmp_path: Path) -> None:
    found = weights_of(run_interrupted(masked_recipe(tmp_path), 3, 3))
    assert all(torch.equal(found[name], value) for name, value in weights_of(family).items())


def test_a_cache_is_refused_as_masks_change(tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="cache_teacher_features is true, but the teacher of masked_image sees ano"):
        masked_recipe(tmp_path, cache_teacher_features=True)


def test_the_published_recipe_is_planned() -> None:
    recipe = load_recipe(REPOSITORY / "examples" / "recipes" / "mae_imagenet.yaml")
    check_growth(recipe)
    assert family_cost(recipe).family_ratio > 2
