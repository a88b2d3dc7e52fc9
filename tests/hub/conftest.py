"""A saved run of two tiny members, as the runner leaves it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hf_chain.cost import FamilyCost, clip_member
from hf_chain.hub import RetryPolicy
from hf_chain.runs.ledger import Ledger
from support.hub_fixtures import hub  # noqa: F401
from support.plots import fixtures_without_plots, without_plots  # noqa: F401

RECIPE = "name: scenes\ndata:\n  source: scenes\nmembers:\n- name: tiny\n- name: small\n"


@pytest.fixture
def patience() -> RetryPolicy:
    """Waits so short that tests of failures stay quick."""
    return RetryPolicy(attempts=4, first_wait=0.01, longest_wait=0.02, total=20.0, silence=1.0)


def tiny_config(width: int) -> CLIPConfig:
    """A CLIP of `width` in both towers."""
    tower = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": 2}
    return CLIPConfig(
        vision_config=tower | {"num_hidden_layers": 2, "image_size": 16, "patch_size": 8},
        text_config=tower
        | {"num_hidden_layers": 1, "vocab_size": 8, "max_position_embeddings": 6}
        | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        projection_dim=width,
    )


def save_member(folder: Path, width: int) -> str:
    """Saves a random CLIP of `width` with its processor; returns the sha256 of its weights."""
    CLIPModel(tiny_config(width)).save_pretrained(folder)
    words = ["<pad>", "<s>", "</s>", "<unk>", "red", "blue", "a", "photo"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    text = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    CLIPProcessor(images, text).save_pretrained(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def saved_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose members `tiny` and `small` are saved and not pushed."""
    run_dir = tmp_path_factory.mktemp("saved") / "scenes"
    ledger = Ledger(run_dir)
    costs = {"samples": 300, "training_macs": {"student": 600, "teacher": 0, "total": 600}, "evaluation_macs": 10}
    plan = FamilyCost(
        [
            clip_member("tiny", tiny_config(8), epochs=3, samples_per_epoch=100, evaluation_macs=10),
            clip_member("small", tiny_config(16), epochs=1, samples_per_epoch=100, teacher=tiny_config(8)),
        ]
    ).to_json()
    recipe = {"name": "scenes", "data": {"source": "scenes"}, "hub": {"prefix": "tester/scenes"}}
    environment = {"versions": {"python": "3.11.7", "torch": "2.13.0"}, "hardware": "2 cores", "processes": 1}
    ledger.append("run_started", recipe=recipe, plan=plan, environment=environment)
    for index, (name, width, parent) in enumerate([("tiny", 8, None), ("small", 16, "tiny")], start=1):
        folder = f"{index:02d}-{name}"
        weights_sha256 = save_member(run_dir / folder, width)
        ledger.append("started", name, index=index, folder=folder, parent=parent)
        if parent:
            ledger.append("grown", name, operator="exact", growth_error={"image": 1.5e-7, "text": 2e-7})
        before, after = {"zero_shot_top1": 0.11}, {"zero_shot_top1": 0.31, "image_to_text_r5": 0.42}
        ledger.append("evaluated_before", name, metrics_before={"validation": before})
        trained = costs | {"training_macs": {"student": 600, "teacher": 200, "total": 800}} if parent else costs
        ledger.append("trained", name, epochs=3.0, parameters=12_345, seconds=61.0, images_per_second=900.0, **trained)
        ledger.append("evaluated", name, metrics_after={"validation": after, "test": {"zero_shot_top1": 0.3}})
        ledger.append("saved", name, weights_sha256=weights_sha256)
    return run_dir


@pytest.fixture
def run_dir(saved_run: Path, tmp_path: Path) -> Path:
    """A copy of the saved run that a test may change."""
    return Path(shutil.copytree(saved_run, tmp_path / "scenes"))
