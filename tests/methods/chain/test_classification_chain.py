"""A chain of image classifiers: what holds for CLIP holds for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    ViTModel,
)

from hf_chain import grow
from hf_chain.commands.methods import CHAIN
from hf_chain.errors import HfChainError
from hf_chain.methods.chain.planning import check_growth, family_cost, memory_plan
from hf_chain.methods.chain.recipe import ChainRecipe, load_recipe, recipe_class
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import FamilyRecord, read_family
from hf_chain.tasks import find_paradigm
from support.chains import run_interrupted, weights_of
from support.recipes import REPOSITORY


def image_recipe(folder: Path, **changes: Any) -> ChainRecipe:
    """Two ViTs on labelled scenes, in two views and accumulated batches that leave a rest."""
    values = {
        "name": "tiny",
        "task": "classification",
        "family": "vit",
        "output_dir": str(folder),
        "data": {
            "scenes": {"train": 120, "validation": 32, "test": 32, "compositional": 32, "image_size": 32},
            "test_splits": ["test"],
            "augmentation": {"crop_scale": [0.6, 1.0]},
            "image_views": 2,
        },
        "model": {"head_size": 8, "image_size": 32, "patch_size": 16},
        "members": [
            {"name": "tiny", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 1},
            {"name": "small", "hidden_size": 32, "num_hidden_layers": 2, "epochs": 2},
        ],
        "training": {
            "per_device_train_batch_size": 16,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-2,
            "adam_epsilon": 1e-6,
            "logging_steps": 1,
            "save_steps": 2,
            "disable_tqdm": True,
        },
    }
    values |= changes
    return recipe_class(values).model_validate(values)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> FamilyRecord:
    return read_family(run(image_recipe(tmp_path_factory.mktemp("images"))))


def test_members_are_grown_trained_evaluated_and_told_of_as_classifiers(family: FamilyRecord) -> None:
    small, folder = family.member("small"), family.run_dir / family.member("small").folder
    assert small.parent == "tiny" and small.growth_error["logits"] < 1e-5
    assert small.metrics_after["validation"].keys() == {"top1", "top5"}
    for row, member in zip(family.plan["members"], family.members, strict=True):
        assert (member.samples, member.training_macs["student"]) == (row["samples"], row["student_macs"])
        assert (member.training_macs["teacher"], member.parameters) == (row["teacher_macs"], row["parameters"])
        assert member.evaluation_macs == row["evaluation_macs"]
    model = AutoModelForImageClassification.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    assert model(**processor(Image.new("RGB", (40, 60)), return_tensors="pt")).logits.shape == (1, 48)
    assert not model.config.id2label[0].startswith("LABEL_")
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: image-classification" in card and "is an image classifier of the vit family" in card
    evaluated = CHAIN.evaluate(str(folder), image_recipe(family.run_dir.parent))
    assert evaluated["test"] == pytest.approx(small.metrics_after["test"])


@pytest.mark.slow
def test_an_interrupted_chain_ends_with_the_same_weights(family: FamilyRecord, tmp_path: Path) -> None:
    found = weights_of(run_interrupted(image_recipe(tmp_path), 3, 5))
    assert all(torch.equal(found[name], value) for name, value in weights_of(family).items())


@pytest.mark.slow
def test_a_cached_teacher_is_the_live_one(family: FamilyRecord, tmp_path: Path) -> None:
    cached = read_family(run(image_recipe(tmp_path, cache_teacher_features=True)))
    found = weights_of(cached)
    for name, value in weights_of(family).items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    assert cached.member("small").training_macs["teacher"] == cached.plan["members"][1]["teacher_macs"]


@pytest.mark.parametrize("headless", [False, True])
def test_a_published_model_of_other_classes_gets_a_new_head(headless: bool, tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = ViTConfig(image_size=32, patch_size=16, num_labels=5, **sizes)
    published = ViTModel(config) if headless else ViTForImageClassification(config)
    published.save_pretrained(tmp_path / "published")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "published")
    recipe = image_recipe(tmp_path, predecessor=str(tmp_path / "published"))
    with pytest.raises(HfChainError, match=r"^members.tiny would be taught by .*published, which has \d+"):
        run(recipe)
    recipe.members[0].training["feature_loss_weight"] = 0
    config = recipe.paradigm.checked_config(recipe.members[0])
    grown = grow(recipe.paradigm.load(str(tmp_path / "published"), config), config)
    assert grown.classifier.weight.shape == (48, 16) and grown.classifier.weight.std() > 0
    encoder = published if headless else published.vit
    for name, weight in grown.vit.state_dict().items():
        assert torch.equal(weight, encoder.state_dict()[name]), name
    family = read_family(run(recipe))
    assert family.member("tiny").training_macs["teacher"] == 0
    assert max(member.growth_error["logits"] for member in family.members) < 1e-5


STAGES = {
    "swin": [
        {"name": "tiny", "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "epochs": 1},
        {"name": "small", "embed_dim": 32, "depths": [2, 4], "num_heads": [4, 8], "epochs": 1},
    ],
    "convnext": [
        {"name": "tiny", "hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1], "epochs": 1},
        {"name": "small", "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1], "epochs": 1},
    ],
}
STAGES["swinv2"] = STAGES["swin"]


@pytest.mark.parametrize("family", sorted(find_paradigm("classification").families()))
def test_families_of_all_classifiers_are_planned(family: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"family": family}
    if family in STAGES:
        window = {"window_size": 4} if "swin" in family else {}
        changes |= {"model": {"image_size": 32, "patch_size": 4} | window, "members": STAGES[family]}
    recipe = image_recipe(tmp_path, **changes)
    check_growth(recipe)
    (small, large), memory = family_cost(recipe).members, memory_plan(recipe)
    assert small.parameters < large.parameters and small.forward < large.forward
    assert [line.split()[1] for line in memory.splitlines()[2:]] == ["tiny", "small"]


def test_weights_are_not_planned_as_activations(tmp_path: Path) -> None:
    """Of one patch and a class token hardly anything is kept for the backward pass."""
    recipe = image_recipe(
        tmp_path,
        model={"head_size": 64, "image_size": 16, "patch_size": 16},
        members=[{"name": "wide", "hidden_size": 256, "num_hidden_layers": 2, "epochs": 1}],
    )
    config = recipe.paradigm.checked_config(recipe.members[0])
    estimate = recipe.paradigm.memory(config, None, {"per_device_train_batch_size": 1})
    assert 0 < estimate.activations < estimate.parameters / 10


@pytest.mark.parametrize("name", ["vit_imagenet", "swin_imagenet"])
def test_published_recipes_of_classifiers_are_planned(name: str) -> None:
    recipe = load_recipe(REPOSITORY / "examples" / "recipes" / f"{name}.yaml")
    check_growth(recipe)
    cost = family_cost(recipe)
    assert [member.parameters for member in cost.members] == sorted(member.parameters for member in cost.members)
    assert cost.family_ratio > 2
