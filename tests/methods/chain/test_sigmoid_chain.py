"""A chain of SigLIPs: what holds for CLIP holds for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, SiglipModel

from hf_chain.commands.methods import CHAIN
from hf_chain.errors import HfChainError
from hf_chain.growth.shapes import check_shapes
from hf_chain.methods.chain.planning import check_growth, family_cost, memory_plan
from hf_chain.methods.chain.recipe import ChainRecipe, load_recipe, recipe_class
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import FamilyRecord, read_family
from support.chains import run_interrupted, weights_of
from support.recipes import REPOSITORY


def pair_recipe(folder: Path, **changes: Any) -> ChainRecipe:
    """Two SigLIPs on scenes with two captions each; the second one's towers are wider, one of them deeper."""
    values = {
        "name": "tiny",
        "task": "sigmoid",
        "family": "siglip",
        "output_dir": str(folder),
        "data": {
            "captions_per_image": 2,
            "scenes": {"train": 128, "validation": 32, "test": 32, "compositional": 32, "image_size": 32},
            "test_splits": ["test"],
        },
        "tokenizer": {"vocab_size": 600},
        "model": {
            "head_size": 8,
            "vision": {"image_size": 32, "patch_size": 16},
            "text": {"max_position_embeddings": 40},
        },
        "members": [
            {"name": "tiny", "vision": _tower(16, 1), "text": _tower(16, 1), "epochs": 1},
            {"name": "small", "vision": _tower(24, 2), "text": _tower(16, 1), "epochs": 2},
        ],
        "training": {
            "per_device_train_batch_size": 32,
            "learning_rate": 1e-3,
            "adam_epsilon": 1e-6,
            "logging_steps": 1,
            "save_steps": 2,
            "disable_tqdm": True,
        },
    }
    values |= changes
    return recipe_class(values).model_validate(values)


def _tower(width: int, depth: int) -> dict[str, int]:
    return {"hidden_size": width, "num_hidden_layers": depth}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> FamilyRecord:
    return read_family(run(pair_recipe(tmp_path_factory.mktemp("pairs"))))


def test_members_are_grown_trained_evaluated_and_told_of_as_siglips(family: FamilyRecord) -> None:
    small, folder = family.member("small"), family.run_dir / family.member("small").folder
    assert small.parent == "tiny" and max(small.growth_error[tower] for tower in ("image", "text")) < 1e-5
    assert {"zero_shot_top1", "text_to_image_r1"} <= small.metrics_after["validation"].keys()
    for row, member in zip(family.plan["members"], family.members, strict=True):
        assert (member.samples, member.training_macs["student"]) == (row["samples"], row["student_macs"])
        assert (member.training_macs["teacher"], member.parameters) == (row["teacher_macs"], row["parameters"])
        # Texts fill the context when they are evaluated, too.
        assert member.evaluation_macs == row["evaluation_macs"]
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert type(model) is SiglipModel and not list(folder.glob("*maps*"))
    texts = processor(text=["a red circle"], padding="max_length", truncation=True, return_tensors="pt")
    assert texts.keys() == {"input_ids"} and texts["input_ids"].shape == (1, 40)
    images = processor(images=Image.new("RGB", (40, 60)), return_tensors="pt")
    assert model(**texts, **images).logits_per_image.shape == (1, 1)
    # Trained on from those of the paper.
    assert 0 < abs(model.logit_bias.item() + 10) < 1
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: zero-shot-image-classification" in card and "is a siglip dual encoder" in card
    evaluated = CHAIN.evaluate(str(folder), pair_recipe(family.run_dir.parent))
    assert evaluated["test"] == pytest.approx(small.metrics_after["test"])


@pytest.mark.slow
def test_an_interrupted_chain_ends_with_the_same_weights(family: FamilyRecord, tmp_path: Path) -> None:
    found = weights_of(run_interrupted(pair_recipe(tmp_path), 3, 5))
    assert all(torch.equal(found[name], value) for name, value in weights_of(family).items())


@pytest.mark.slow
def test_a_cached_teacher_is_the_live_one(family: FamilyRecord, tmp_path: Path) -> None:
    cached = read_family(run(pair_recipe(tmp_path, cache_teacher_features=True)))
    found = weights_of(cached)
    for name, value in weights_of(family).items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    assert cached.member("small").training_macs["teacher"] == cached.plan["members"][1]["teacher_macs"]


@pytest.mark.slow
def test_a_softmax_chain_branches_from_a_published_siglip(family: FamilyRecord, tmp_path: Path) -> None:
    published = str(family.run_dir / family.member("tiny").folder)
    members = [
        {"name": "wide", "vision": _tower(24, 1), "text": _tower(16, 1), "epochs": 1},
        {"name": "deep", "vision": _tower(24, 2), "text": _tower(16, 1), "epochs": 1},
        {"name": "both", "vision": _tower(32, 1), "text": _tower(24, 1), "epochs": 1, "grown_from": "wide"},
    ]
    changes = {"predecessor": published, "tokenizer": {"name_or_path": published, "vocab_size": 600}}
    training = {"per_device_train_batch_size": 32, "micro_batch_size": 16, "learning_rate": 1e-3, "logging_steps": 1}
    branched = read_family(
        run(pair_recipe(tmp_path, task="contrastive", members=members, training=training, **changes))
    )
    assert [member.parent for member in branched.members] == [published, "wide", "wide"]
    for row, member in zip(branched.plan["members"], branched.members, strict=True):
        assert max(member.growth_error[tower] for tower in ("image", "text")) < 1e-5
        assert member.training_macs["student"] == row["student_macs"]
        assert member.training_macs["teacher"] == row["teacher_macs"] > 0


@pytest.mark.parametrize("task", ["sigmoid", "contrastive"])
def test_chains_of_siglips_are_planned(task: str, tmp_path: Path) -> None:
    recipe = pair_recipe(tmp_path, task=task)
    check_growth(recipe)
    small, large = family_cost(recipe).members
    assert small.parameters < large.parameters and small.forward < large.forward
    assert [line.split()[1] for line in memory_plan(recipe).splitlines()[2:]] == ["tiny", "small"]


def test_a_published_siglip_may_name_other_marks_than_its_tokenizer(tmp_path: Path) -> None:
    """Google's do: no weight depends on them, as texts are read at their last place."""
    recipe = pair_recipe(tmp_path)
    old, new = (recipe.paradigm.checked_config(member) for member in recipe.members)
    old.text_config.eos_token_id, new.text_config.eos_token_id = 49407, 1
    check_shapes(old, new, keep_heads=True)


def test_what_no_siglip_has_is_refused_in_a_line(tmp_path: Path) -> None:
    member = {"name": "tiny", "vision": {"hiden_size": 16}, "text": _tower(16, 1), "epochs": 1}
    with pytest.raises(HfChainError, match=r"^members.tiny.vision.hiden_size is no field of SiglipVisionConfig"):
        check_growth(pair_recipe(tmp_path, members=[member]))
    with pytest.raises(HfChainError, match="task is sigmoid and family is clip, which it does not train: use one of"):
        recipe_class({"task": "sigmoid", "family": "clip"})


def test_the_published_recipe_is_planned() -> None:
    recipe = load_recipe(REPOSITORY / "examples" / "recipes" / "siglip_cc12m.yaml")
    check_growth(recipe)
    cost = family_cost(recipe)
    assert [member.parameters for member in cost.members] == sorted(member.parameters for member in cost.members)
    assert cost.family_ratio > 2
