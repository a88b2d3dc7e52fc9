"""A chain of dual encoders of any two towers: one whose text tower grows, and one with a BERT that stays."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, BertTokenizer, VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from hf_chain.commands.methods import CHAIN
from hf_chain.commands.report import write_report
from hf_chain.data import DataSettings, load_splits, towers_processor
from hf_chain.errors import HfChainError
from hf_chain.methods.chain.planning import check_growth, family_cost, memory_plan
from hf_chain.methods.chain.recipe import ChainRecipe, load_recipe, recipe_class
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import FamilyRecord, read_family
from support.chains import run_interrupted, weights_of
from support.recipes import REPOSITORY

SCENES = {"train": 128, "validation": 32, "test": 32, "compositional": 32, "image_size": 32}
LONG, SHORT = 40, 24
"""Positions of the text towers, and tokens of a caption in the chain with a BERT."""


def pair_recipe(folder: Path, text: str = "clip_text_model", **changes: Any) -> ChainRecipe:
    """Two members on scenes with two captions each; the second one's towers are wider, and the embedding is larger."""
    wider = {"clip_text_model": 24, "bert": 16}[text]
    values = {
        "name": "tiny",
        "family": "vision-text-dual-encoder",
        "output_dir": str(folder),
        "data": {
            "captions_per_image": 2,
            "scenes": SCENES,
            "test_splits": ["test"],
        },
        "tokenizer": {"vocab_size": 600},
        "model": {
            "head_size": 8,
            "projection_dim": 12,
            "vision": {"model_type": "vit", "image_size": 32, "patch_size": 16},
            "text": {"model_type": text, "max_position_embeddings": LONG},
        },
        "members": [
            {"name": "tiny", "vision": _tower(16, 1), "text": _tower(16, 1), "epochs": 1},
            {"name": "small", "vision": _tower(24, 2), "text": _tower(wider, 1), "projection_dim": 16, "epochs": 2},
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


def check_as_planned(family: FamilyRecord) -> None:
    """Every figure of the plan is the run's; in evaluation texts are padded to the longest of a batch alone."""
    for row, member in zip(family.plan["members"], family.members, strict=True):
        assert (member.samples, member.training_macs["student"]) == (row["samples"], row["student_macs"])
        assert (member.training_macs["teacher"], member.parameters) == (row["teacher_macs"], row["parameters"])
        assert 0 < member.evaluation_macs <= row["evaluation_macs"]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> FamilyRecord:
    return read_family(run(pair_recipe(tmp_path_factory.mktemp("towers"))))


def test_members_are_grown_trained_evaluated_and_told_of(family: FamilyRecord) -> None:
    small, folder = family.member("small"), family.run_dir / family.member("small").folder
    assert small.parent == "tiny" and max(small.growth_error[tower] for tower in ("image", "text")) < 1e-5
    assert {"zero_shot_top1", "text_to_image_r1"} <= small.metrics_after["validation"].keys()
    check_as_planned(family)
    model, report = VisionTextDualEncoderModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()) and not list(folder.glob("*maps*"))
    kinds = [tower.model_type for tower in (model.config.vision_config, model.config.text_config)]
    assert kinds == ["vit", "clip_text_model"]
    assert 0 < abs(model.logit_scale.item() - 2.6593) < 0.1
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(
        text=["a red circle", "two blue squares"], images=Image.new("RGB", (40, 60)), padding=True, return_tensors="pt"
    )
    assert model(**inputs).logits_per_image.shape == (1, 2)
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: zero-shot-image-classification" in card
    assert "is a dual encoder of a vit and a clip_text_model" in card and "text tower of 24 × 1 on up to 40" in card
    evaluated = CHAIN.evaluate(str(folder), pair_recipe(family.run_dir.parent))
    assert evaluated["test"] == pytest.approx(small.metrics_after["test"])
    assert "24 × 2" in write_report(family.run_dir).read_text()


def test_an_interrupted_chain_ends_with_the_same_weights(family: FamilyRecord, tmp_path: Path) -> None:
    found = weights_of(run_interrupted(pair_recipe(tmp_path), 3, 5))
    assert all(torch.equal(found[name], value) for name, value in weights_of(family).items())


def test_a_cached_teacher_is_the_live_one(family: FamilyRecord, tmp_path: Path) -> None:
    cached = read_family(run(pair_recipe(tmp_path, cache_teacher_features=True)))
    found = weights_of(cached)
    for name, value in weights_of(family).items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    check_as_planned(cached)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A stock folder of a Swin and a BERT, with a word-piece tokenizer that has no end mark."""
    cells = load_splits(DataSettings(scenes=SCENES))["train"]["captions"]
    words = {word for captions in cells for caption in captions for word in re.findall(r"\w+|\S", caption.lower())}
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = BertTokenizer(vocab={entry: number for number, entry in enumerate([*marks, *sorted(words)])})
    tokenizer.model_max_length = LONG
    config = VisionTextDualEncoderConfig(
        vision_config={"model_type": "swin", **SWIN, **_swin(16)},
        text_config=_tower(16, 1)
        | {"model_type": "bert", "num_attention_heads": 2, "intermediate_size": 64}
        | {"vocab_size": len(tokenizer), "max_position_embeddings": LONG},
        projection_dim=12,
    )
    folder = tmp_path_factory.mktemp("published")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        VisionTextDualEncoderModel(config).save_pretrained(folder)
    towers_processor(tokenizer, 32, needs_end=False).save_pretrained(folder)
    return str(folder)


SWIN = {"image_size": 32, "patch_size": 4, "window_size": 4}


def _swin(width: int) -> dict[str, Any]:
    return {"embed_dim": width, "depths": [2, 2], "num_heads": [width // 8, width // 4]}


@pytest.mark.parametrize("cached", [False, True])
def test_a_chain_starts_from_a_published_swin_beside_a_bert(published: str, cached: bool, tmp_path: Path) -> None:
    text = {"model_type": "bert", "max_position_embeddings": LONG}
    recipe = pair_recipe(
        tmp_path,
        "bert",
        predecessor=published,
        tokenizer={"name_or_path": published},
        cache_teacher_features=cached,
        model={
            "head_size": 8,
            "projection_dim": 12,
            "max_text_tokens": SHORT,
            "vision": {"model_type": "swin", **SWIN},
            "text": text,
        },
        members=[{"name": "small", "vision": _swin(32), "text": _tower(16, 1), "projection_dim": 16, "epochs": 1}],
    )
    check_growth(recipe)
    found = read_family(run(recipe))
    small = found.member("small")
    assert small.parent == published and max(small.growth_error[tower] for tower in ("image", "text")) < 1e-5
    check_as_planned(found)
    assert found.plan["members"][0]["shape"] == {"image tower": "32/64 × 2/2", "text tower": "16 × 1"}
    folder = found.run_dir / small.folder
    model, processor = VisionTextDualEncoderModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    before = VisionTextDualEncoderModel.from_pretrained(published).text_model.state_dict()
    # The text tower keeps its shape, and is trained.
    assert any(not torch.equal(value, before[name]) for name, value in model.text_model.state_dict().items())
    assert processor.tokenizer.model_max_length == SHORT and "attention_mask" in processor(text=["a red circle"])


def test_a_member_trained_from_scratch_beside_a_bert_reads_a_trained_tokenizer(tmp_path: Path) -> None:
    found = read_family(run(pair_recipe(tmp_path, "bert")))
    assert max(found.member("small").growth_error[tower] for tower in ("image", "text")) < 1e-5
    check_as_planned(found)


def test_chains_are_planned(tmp_path: Path) -> None:
    recipe = pair_recipe(tmp_path)
    check_growth(recipe)
    small, large = family_cost(recipe).members
    assert small.parameters < large.parameters and small.forward < large.forward
    assert [line.split()[1] for line in memory_plan(recipe).splitlines()[2:]] == ["tiny", "small"]


@pytest.mark.parametrize(
    ("vision", "text", "said"),
    [
        ({"model_type": "vit", "hiden_size": 16}, {}, r"model.vision.hiden_size is no field of ViTConfig; did you"),
        (
            {"model_type": "convnext"},
            {},
            "vision_config.model_type 'convnext' has no pooled output .* use one of",
        ),
        ({"model_type": "siglip2_vision_model"}, {}, "'siglip2_vision_model', which takes lists of patches"),
        ({}, {}, "model.vision.model_type is not set: name a kind of tower"),
        (
            {"model_type": "vit"},
            {"model_type": "t5"},
            "text_config.model_type 't5' has no .* use one of clip_te",
        ),
        (
            {"model_type": "vit"},
            {"max_position_embeddings": 16},
            "max_text_tokens is 20, .* places for 16 tokens",
        ),
        (
            {"model_type": "vit"},
            {"model_type": "roberta", "max_position_embeddings": 20},
            "max_text_tokens is 20, .* places for 18 tokens: set model.text.max_position_embeddings to 22",
        ),
    ],
)
def test_what_makes_no_dual_encoder_is_refused_in_a_line(
    vision: dict[str, Any], text: dict[str, Any], said: str, tmp_path: Path
) -> None:
    model = {
        "head_size": 8,
        "max_text_tokens": 20,
        "vision": vision,
        "text": {"model_type": "clip_text_model", **text},
    }
    members = [{"name": "tiny", "vision": {}, "text": _tower(16, 1), "epochs": 1}]
    with pytest.raises(HfChainError, match=said) as error:
        check_growth(pair_recipe(tmp_path, model=model, members=members))
    assert "\n" not in str(error.value)


def test_a_bert_grows_no_further_and_a_sigmoid_has_no_bias(tmp_path: Path) -> None:
    members = [
        {"name": name, "vision": _tower(16, 1), "text": _tower(width, 1), "epochs": 1}
        for name, width in (("tiny", 16), ("small", 24))
    ]
    with pytest.raises(HfChainError, match="members.small cannot grow from tiny: text.* as norms on the stream"):
        check_growth(pair_recipe(tmp_path, "bert", members=members))
    with pytest.raises(HfChainError, match="family is vision-text-dual-encoder, which it does not train: use one of"):
        recipe_class({"task": "sigmoid", "family": "vision-text-dual-encoder"})


def test_the_published_recipe_is_planned() -> None:
    recipe = load_recipe(REPOSITORY / "examples" / "recipes" / "vit_clip_text_cc12m.yaml")
    check_growth(recipe)
    cost = family_cost(recipe)
    assert [member.parameters for member in cost.members] == sorted(member.parameters for member in cost.members)
    assert cost.family_ratio > 2
