"""Grafting: the image half of a model trained on a surrogate, on the whole target."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, PreTrainedModel

from hf_chain.errors import HfChainError
from hf_chain.grafting.graft import graft
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.models import GraftedVLMForConditionalGeneration, GraftedVLMProcessor, from_parts
from support.command_line import Command
from support.grafted_parts import image_processor, photos, processed, tiny_decoder, tiny_tokenizer, tiny_tower
from support.hub_server import HubServer

Trained = tuple[GraftedVLMForConditionalGeneration, GraftedVLMProcessor]
PROMPTS = ["what is this <image>", "what is a goldfish"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    tiny_decoder("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(target: Path) -> Trained:
    return from_parts(tiny_tower("clip"), build_surrogate(target, "3-6"), tiny_tokenizer(), image_processor())


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained")
    for part in trained:
        part.save_pretrained(path)
    return path


def by_hand(trained: Trained, target: PreTrainedModel) -> GraftedVLMForConditionalGeneration:
    """A new model of encoder and target, into which the trained weights of the image half are copied."""
    model, _ = from_parts(tiny_tower("clip"), target, tiny_tokenizer(), image_processor())
    half = {name: weight for name, weight in trained[0].state_dict().items() if not name.startswith("language_model.")}
    missing, unexpected = model.load_state_dict(half, strict=False)
    assert not unexpected
    assert all(name.startswith("language_model.") for name in missing)
    return model


@torch.no_grad()
def test_a_graft_equals_a_swap_by_hand(trained: Trained, folder: Path, target: Path) -> None:
    inputs = processed(trained[1], PROMPTS)
    expected = by_hand(trained, tiny_decoder("llama"))(**inputs).logits
    assert not torch.allclose(trained[0](**inputs).logits, expected)
    from_folders = graft(folder, target)
    in_memory = graft(trained[0], tiny_decoder("llama"), tokenizer=tiny_tokenizer())
    for grafted in (from_folders, in_memory):
        assert torch.equal(grafted(**inputs).logits, expected)
        assert not grafted.training
        assert all(weight.requires_grad for weight in grafted.parameters())
    assert from_folders.config.hf_chain_graft["surrogate"]["replaced"] == [[3, 6]]
    assert from_folders.config.hf_chain_graft["target"] == str(target)


@torch.no_grad()
def test_the_grafted_folder_loads_with_the_auto_class(trained: Trained, target: Path, tmp_path: Path) -> None:
    grafted = graft(trained[0], target)
    grafted.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    inputs = processed(trained[1], PROMPTS)
    assert torch.equal(loaded(**inputs).logits, grafted(**inputs).logits)
    assert loaded.config.hf_chain_graft == grafted.config.hf_chain_graft


def test_what_a_graft_takes_from_memory_is_a_copy(trained: Trained, target: Path) -> None:
    before = copy.deepcopy(trained[0].state_dict())
    grafted = graft(trained[0], target)
    with torch.no_grad():
        for weight in grafted.parameters():
            weight.zero_()
    assert all(torch.equal(weight, before[name]) for name, weight in trained[0].state_dict().items())


def test_the_surrogate_is_not_read(folder: Path, target: Path, tmp_path: Path) -> None:
    """Its weights may even be gone, all but the token embeddings that are compared."""
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = [name for name in list(file.keys()) if "language_model.model.layers" not in name]
        kept = {name: file.get_tensor(name) for name in names}
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    assert graft(tmp_path, target).config.text_config.num_hidden_layers == 8


def same_image_half(grafted: PreTrainedModel, trained: PreTrainedModel) -> bool:
    state = grafted.state_dict()
    half = {name: weight for name, weight in trained.state_dict().items() if not name.startswith("language_model.")}
    return all(torch.equal(state[name], weight) for name, weight in half.items())


def sharded(trained: Trained, folder: Path) -> list[str]:
    """Saves a model in many shards, and says which hold nothing that a graft reads."""
    trained[0].save_pretrained(folder, max_shard_size="20KB")
    trained[1].save_pretrained(folder)
    shards = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    read = {shard for name, shard in shards.items() if not name.startswith("language_model.model.layers")}
    return sorted(set(shards.values()) - read)


def test_shards_of_the_surrogate_alone_need_not_exist(trained: Trained, target: Path, tmp_path: Path) -> None:
    unread = sharded(trained, tmp_path)
    assert unread
    for shard in unread:
        (tmp_path / shard).unlink()
    assert same_image_half(graft(tmp_path, target), trained[0])


def test_from_the_hub_what_is_read_is_fetched_at_its_revision(
    hub: HubServer, hf_chain: Command, trained: Trained, target: Path, tmp_path: Path
) -> None:
    unread = sharded(trained, tmp_path)
    api = HfApi()
    for name, folder in (("tester/vlm", tmp_path), ("tester/target", target)):
        api.create_repo(name)
        first = api.upload_folder(repo_id=name, folder_path=folder).oid
    for damaged in ("config.json", "tokenizer.json"):
        api.upload_file(path_or_fileobj=b"{}", path_in_repo=damaged, repo_id="tester/target")
    grafted = graft("tester/vlm", "tester/target", revision=first)
    assert same_image_half(grafted, trained[0])
    fetched = {request.rpartition("/")[2] for request in hub.requests if "/vlm/resolve/" in request}
    assert "config.json" in fetched and not fetched & set(unread)
    assert grafted.config.hf_chain_graft["revision"] == first
    made = hf_chain("graft", tmp_path, "tester/target", tmp_path / "out", "--revision", first)
    assert made.status == 0, made.err
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"tester/target out --revision {first}" in card and f"at `{first}`" in card


@pytest.mark.parametrize("damage", ["missing", "misshaped"])
def test_an_image_half_that_is_not_whole_is_refused(damage: str, folder: Path, target: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    if damage == "missing":
        del weights["adapter.0.weight"]
    else:
        weights["adapter.0.weight"] = torch.zeros(3, 3)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    message = "lacks adapter.0.weight" if damage == "missing" else "adapter.0.weight of .* has shape"
    with pytest.raises(HfChainError, match=message) as caught:
        graft(tmp_path, target)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_precision_follows_the_target_or_the_wish(trained: Trained, folder: Path, target: Path) -> None:
    assert graft(folder, target, dtype=torch.bfloat16).dtype == torch.bfloat16
    rough = graft(trained[0], tiny_decoder("llama").to(torch.bfloat16), tokenizer=tiny_tokenizer())
    assert {weight.dtype for weight in rough.parameters()} == {torch.bfloat16}
    assert torch.isfinite(rough(**processed(trained[1], PROMPTS)).logits).all()


def test_a_composite_target_gives_its_language_model() -> None:
    target = tiny_decoder("gemma3")
    surrogate = build_surrogate(target, "3-6")
    trained, processor = from_parts(tiny_tower(), surrogate, tiny_tokenizer(), image_processor())
    grafted = graft(trained, target, tokenizer=tiny_tokenizer())
    assert grafted.config.text_config.model_type == "gemma3_text"
    inputs = processor(text="what is this <image>", images=photos(1), return_tensors="pt")
    assert grafted(**inputs).logits.shape[-1] == 48


WORDS = ["<unk>", "<s>", "</s>", "<pad>", "<user>", "<assistant>", "what"]
MISFITS: dict[str, tuple[Callable[[], PreTrainedModel], Callable[[], Any], str]] = {
    "embedding size": (
        lambda: tiny_decoder("llama", hidden_size=64),
        tiny_tokenizer,
        "its embedding size is 64, the adapter's 32. Graft it onto its own target",
    ),
    "vocabulary size": (
        lambda: tiny_decoder("llama", vocab_size=8),
        tiny_tokenizer,
        "its vocabulary has 8 rows, the tokenizer 12 tokens",
    ),
    "layers": (
        lambda: tiny_decoder("llama", num_hidden_layers=4),
        tiny_tokenizer,
        "it has 4 layers, the surrogate was cut from 8 of target",
    ),
    "family": (lambda: tiny_decoder("mistral"), tiny_tokenizer, "it is a mistral, the surrogate a llama"),
    "another model": (
        lambda: tiny_decoder("llama", seed=1),
        tiny_tokenizer,
        "its token embeddings differ in 24 of 24 rows compared",
    ),
    "chat template": (
        lambda: tiny_decoder("llama"),
        lambda: tiny_tokenizer("{{ messages[0]['content'] }}"),
        "its chat template differs",
    ),
    "no chat template": (lambda: tiny_decoder("llama"), lambda: tiny_tokenizer(None), "it has no chat template"),
    "vocabulary": (
        lambda: tiny_decoder("llama"),
        lambda: tiny_tokenizer(words=WORDS),
        "its vocabulary differs (7 tokens, trained with 12): '<pad>' is 3, was 0, '<unk>' is 0, was 3, 'is' is"
        " missing, was 7 and 4 more",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_said_in_one_line(case: str, folder: Path, target: Path) -> None:
    model, tokenizer, message = MISFITS[case]
    with pytest.raises(HfChainError) as caught:
        graft(folder, model(), tokenizer=tokenizer())
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{folder} does not fit LlamaForCausalLM: ") or case == "family"
    assert "\n" not in str(caught.value)


def test_what_differs_is_a_warning_where_it_is_wished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    # The module's name is the function's too.
    monkeypatch.setattr(sys.modules[graft.__module__].logger, "warning", warnings.append)
    other = tiny_decoder("llama", num_hidden_layers=4)
    assert graft(folder, other, tokenizer=tiny_tokenizer(None), strict=False).language_model is other
    before, after = (text for text in warnings if "is grafted onto" in text)
    assert "it has 4 layers, the surrogate was cut from 8" in before and "it has no chat template" in before
    assert "its token embeddings differ" in after
    with pytest.raises(HfChainError, match="its embedding size is 64"):
        graft(folder, tiny_decoder("llama", hidden_size=64), tokenizer=tiny_tokenizer(), strict=False)


def test_a_target_that_is_no_language_model_is_refused(folder: Path, target: Path) -> None:
    with pytest.raises(
        HfChainError, match="is a clip_vision_model, no language model: give the one that the surrogate"
    ):
        graft(folder, tiny_tower(), tokenizer=tiny_tokenizer())


def test_only_grafted_models_are_grafted(target: Path, tmp_path: Path) -> None:
    for vlm, message in (
        (target, "holds a llama, no grafted model"),
        (tiny_decoder("llama"), "LlamaForCausalLM is no grafted model"),
        (tmp_path / "none", "there is no folder"),
    ):
        with pytest.raises(HfChainError, match=message):
            graft(vlm, target)


@pytest.mark.parametrize("damage", [b"\x00" * 64, b""])
def test_a_damaged_folder_gets_one_line(damage: bytes, folder: Path, target: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(damage)
    with pytest.raises(HfChainError, match="encrypted, cut short or damaged") as caught:
        graft(tmp_path, target)
    assert "\n" not in str(caught.value)
