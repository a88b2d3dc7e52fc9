"""The plans of the published recipes, from configurations of the published shapes: nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoConfig, CLIPImageProcessorPil, CLIPVisionConfig

from hf_chain.methods.graft.planning import plan_graft
from hf_chain.methods.graft.recipe import load_graft_recipe
from support.chat_models import chat_tokenizer
from support.recipes import REPOSITORY

pytestmark = pytest.mark.slow
LLAMA_VOCABULARY, VISION_BILLIONS = 128_256, 0.304
TARGETS: dict[str, tuple[str, dict[str, Any], float, int]] = {
    # Model type, shape, billions of parameters, layers of the surrogate.
    "llama3.2_3b": ("llama", {"widths": (3072, 8192), "layers": 28, "heads": (24, 8), "tied": True}, 3.21, 18),
    "llama3.1_8b": ("llama", {"widths": (4096, 14336), "layers": 32, "heads": (32, 8)}, 8.03, 19),
    "llama3.1_70b": ("llama", {"widths": (8192, 28672), "layers": 80, "heads": (64, 8)}, 70.6, 42),
    "qwen3_4b": (
        "qwen3",
        {"widths": (2560, 9728), "layers": 36, "heads": (32, 8), "tied": True, "vocab_size": 151_936},
        4.02,
        24,
    ),
    "gemma3_12b": (
        "gemma3_text",
        {"widths": (3840, 15360), "layers": 48, "heads": (16, 8), "head_dim": 256, "vocab_size": 262_208},
        11.8,
        28,
    ),
}


def config_of(kind: str, shape: dict[str, Any]) -> Any:
    """The configuration of a target."""
    fields = {"vocab_size": LLAMA_VOCABULARY, "head_dim": 128} | shape
    fields["hidden_size"], fields["intermediate_size"] = fields.pop("widths")
    fields["num_attention_heads"], fields["num_key_value_heads"] = fields.pop("heads")
    fields["num_hidden_layers"] = fields.pop("layers")
    tied = fields.pop("tied", None)
    return AutoConfig.for_model(kind, **fields, **({} if tied is None else {"tie_word_embeddings": tied}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder without weights, and conversations in place of the published ones."""
    folder = tmp_path_factory.mktemp("published")
    large = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    CLIPVisionConfig(**large, image_size=336, patch_size=14).save_pretrained(folder / "encoder")
    size = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    CLIPImageProcessorPil(**size).save_pretrained(folder / "encoder")
    Image.new("RGB", (8, 8)).save(folder / "red.png")
    talk = [{"from": "human", "value": "<image>\nwhat is it?"}, {"from": "gpt", "value": "red"}]
    (folder / "mix.json").write_text(json.dumps([{"image": "red.png", "conversations": talk}] * 1128))
    messages = [{"role": "user", "content": "what is red?"}, {"role": "assistant", "content": "a colour"}]
    (folder / "text.jsonl").write_text("\n".join([json.dumps({"messages": messages})] * 64))
    return folder


@pytest.mark.parametrize("name", TARGETS)
def test_a_published_recipe_can_be_planned(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets_cache")
    kind, shape, billions, layers = TARGETS[name]
    config_of(kind, shape).save_pretrained(folder / name)
    chat_tokenizer().save_pretrained(folder / name)
    replaced = {"target.name_or_path": folder / name, "encoder.name_or_path": folder / "encoder"}
    replaced |= {"data.images.source": folder / "mix.json", "data.text.source": folder / "text.jsonl"}
    flags = [f"{place}={path}" for place, path in replaced.items()]
    recipe = REPOSITORY / "examples" / "recipes" / f"graft_{name}.yaml"
    plan = plan_graft(load_graft_recipe(recipe, [*flags, "baseline=[]", "evaluation.max_samples=4"]))
    assert plan.surrogate is not None and plan.surrogate.layers == layers
    translator, encoder, graft, decoder = plan.stages
    assert graft.parameters == pytest.approx((billions + VISION_BILLIONS) * 1e9, rel=0.02)
    assert translator.parameters == encoder.parameters < graft.parameters == decoder.parameters
    assert (translator.samples, encoder.samples, graft.macs) == (128 + 64, 128, 0)
    assert min(translator.macs, encoder.macs, decoder.macs) > 0
    assert decoder.trained_parameters > encoder.trained_parameters and not graft.trained_parameters
