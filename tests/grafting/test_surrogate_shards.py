"""A surrogate is read from its target's shards, whatever their layout, and nothing else is."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from hf_chain.errors import HfChainError
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.shards import LazyTensor
from hf_chain.grafting.surrogate import build_surrogate
from support.decoders import tiny_decoder
from support.hub_server import HubServer

INDEX = "model.safetensors.index.json"


def shards_of(folder: Path) -> dict[str, str]:
    return json.loads((folder / INDEX).read_text())["weight_map"]


def one_layer_a_shard(model: PreTrainedModel, folder: Path) -> Path:
    """Saves `model` with one shard for each layer and one for the rest."""
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for name in weights:
        layer = re.search(r"layers\.(\d+)\.", name)
        weight_map[name] = f"layer-{layer[1]}.safetensors" if layer else "rest.safetensors"
    for shard in set(weight_map.values()):
        part = {name: weights[name] for name, where in weight_map.items() if where == shard}
        save_file(part, folder / shard, metadata={"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def forget_dtype(folder: Path) -> None:
    """Lets the configuration say nothing about the type of the weights."""
    values = json.loads((folder / "config.json").read_text())
    del values["dtype"]
    (folder / "config.json").write_text(json.dumps(values))


def equal_models(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    state = other.state_dict()
    return all(torch.equal(weight, state[name]) for name, weight in one.state_dict().items())


def test_shards_without_kept_tensors_need_not_exist(tmp_path: Path) -> None:
    target = tiny_decoder("llama")
    folder = one_layer_a_shard(target, tmp_path / "target")
    for layer in (3, 4, 5):
        (folder / f"layer-{layer}.safetensors").unlink()
    assert equal_models(build_surrogate(folder, "2-5"), build_surrogate(target, "2-5"))
    forget_dtype(folder)
    assert equal_models(build_surrogate(folder, "2-5"), build_surrogate(target, "2-5"))


def test_only_kept_tensors_are_read_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tiny_decoder("llama")
    target.save_pretrained(tmp_path / "target")
    read: list[str] = []
    whole = LazyTensor.__getitem__

    def remember(self: LazyTensor, index: object) -> torch.Tensor:
        read.append(self.name)
        return whole(self, index)

    monkeypatch.setattr(LazyTensor, "__getitem__", remember)
    build_surrogate(tmp_path / "target", "2-5")
    dropped = re.compile(r"model\.layers\.[345]\.")
    assert sorted(read) == sorted(name for name in target.state_dict() if not dropped.match(name))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_peak_memory_is_the_surrogates(tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "vocab_size": 64}
    target = AutoModelForCausalLM.from_config(LlamaConfig(num_hidden_layers=24, num_key_value_heads=4, **sizes))
    size = sum(weight.nbytes for weight in target.parameters())
    target.save_pretrained(tmp_path / "target", max_shard_size="20MB")
    del target
    build_surrogate(tmp_path / "target", "1-22")  # What the first call imports is not counted.
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Sets the peak back.
    surrogate = build_surrogate(tmp_path / "target", "4-20", output_dir=tmp_path / "surrogate")
    kept = sum(weight.nbytes for weight in surrogate.parameters())
    assert kept < size / 2
    assert memory("VmHWM") - before < kept + 8e6


def memory(field: str) -> int:
    """A field of this process's status, in bytes."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def test_a_surrogate_does_not_change_with_its_targets_files(tmp_path: Path) -> None:
    target = tiny_decoder("llama")
    target.save_pretrained(tmp_path)
    surrogate = build_surrogate(tmp_path, "2-5")
    file = tmp_path / "model.safetensors"
    with file.open("r+b") as opened:
        opened.seek(-2000, 2)
        opened.write(bytes(2000))
    assert equal_models(surrogate, build_surrogate(target, "2-5"))


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe"])
@pytest.mark.parametrize("published", [True, False])
def test_experts_one_by_one_and_fused(model_type: str, published: bool, tmp_path: Path) -> None:
    target = tiny_decoder(model_type)
    target.save_pretrained(tmp_path / "target", max_shard_size="40KB", save_original_format=published)
    fused = any(name.endswith("experts.gate_up_proj") for name in shards_of(tmp_path / "target"))
    assert fused != published
    surrogate = build_surrogate(tmp_path / "target", "1-2,4-6", output_dir=tmp_path / "surrogate")
    assert equal_models(surrogate, build_surrogate(target, "1-2,4-6"))
    # Engines expect the published form, also of what trains the surrogate and saves it later.
    names = load_file(tmp_path / "surrogate" / "model.safetensors")
    assert any(re.search(r"experts\.3\.\w+\.weight", name) for name in names)
    assert equal_models(AutoModelForCausalLM.from_pretrained(tmp_path / "surrogate"), surrogate)


@pytest.mark.parametrize("published", [True, False])
def test_the_decoder_of_a_composite_checkpoint(published: bool, tmp_path: Path) -> None:
    target = tiny_decoder("gemma3")
    target.save_pretrained(tmp_path, max_shard_size="40KB", save_original_format=published)
    assert ("language_model.model.norm.weight" in shards_of(tmp_path)) == published
    surrogate = build_surrogate(tmp_path, "2-5")
    assert type(surrogate).__name__ == "Gemma3ForCausalLM"
    assert surrogate.config.model_type == "gemma3_text"
    assert not any("vision" in name for name in surrogate.state_dict())
    assert equal_models(surrogate, build_surrogate(target, "2-5"))


@pytest.mark.parametrize(("model_type", "prefix"), [("gpt2", "transformer."), ("opt", "model."), ("llama", "model.")])
def test_names_without_the_models_prefix(model_type: str, prefix: str, tmp_path: Path) -> None:
    # As openai-community/gpt2 and facebook/opt-125m are published.
    target = tiny_decoder(model_type)
    target.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    short = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    assert short.keys() != weights.keys()
    save_file(short, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert equal_models(build_surrogate(tmp_path, "2-5"), build_surrogate(target, "2-5"))


@pytest.mark.parametrize("said", [True, False])
def test_the_checkpoints_type_or_another(said: bool, tmp_path: Path) -> None:
    target = tiny_decoder("llama").to(torch.bfloat16)
    target.save_pretrained(tmp_path)
    if not said:
        forget_dtype(tmp_path)
    for dtype in (None, "auto"):
        assert build_surrogate(tmp_path, "2-5", dtype=dtype).dtype is torch.bfloat16
        assert build_surrogate(target, "2-5", dtype=dtype).dtype is torch.bfloat16
    for dtype in ("float32", torch.float32):
        surrogate = build_surrogate(tmp_path, "2-5", dtype=dtype)
        assert surrogate.dtype is torch.float32 and surrogate.config.dtype is torch.float32


def test_the_folder_holds_tokenizer_generation_config_and_licence(tmp_path: Path) -> None:
    target = tiny_decoder("llama")
    target.generation_config.repetition_penalty = 1.25
    target.save_pretrained(tmp_path / "target")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE.txt", "README.md"):
        (tmp_path / "target" / name).write_text(f"the target's {name}")
    build_surrogate(tmp_path / "target", "2-5", output_dir=tmp_path / "new" / "surrogate")
    written = tmp_path / "new" / "surrogate"
    assert {path.name for path in written.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "manifest.json"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE.txt"),
    }
    assert (written / "chat_template.jinja").read_text() == "the target's chat_template.jinja"
    assert json.loads((written / "generation_config.json").read_text())["repetition_penalty"] == 1.25
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["surrogate"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    tiny_decoder("llama").save_pretrained(tmp_path / "target")
    (tmp_path / "target" / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(HfChainError, match="cannot be written \\(No space left on device\\)"):
        build_surrogate(tmp_path / "target", "2-5", output_dir=tmp_path / "surrogate")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_from_the_hub_only_needed_shards_are_downloaded(hub: HubServer, tmp_path: Path) -> None:
    target = tiny_decoder("llama")
    folder = one_layer_a_shard(target, tmp_path / "target")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"never wanted")
    api = HfApi()
    api.create_repo("tester/target")
    first = api.upload_folder(repo_id="tester/target", folder_path=folder).oid
    api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="tester/target")
    hub.requests.clear()
    surrogate = build_surrogate("tester/target", "2-5", revision=first, output_dir=tmp_path / "surrogate")
    assert equal_models(surrogate, build_surrogate(target, "2-5"))
    fetched = {request.rpartition("/")[2] for request in hub.requests if "/resolve/" in request}
    assert {name for name in fetched if name.endswith(".safetensors")} == {
        "rest.safetensors",
        *(f"layer-{layer}.safetensors" for layer in (0, 1, 2, 6, 7)),
    }
    assert "pytorch_model.bin" not in fetched and (tmp_path / "surrogate" / "tokenizer_config.json").exists()
    lineage = read_lineage(surrogate.config)
    assert (lineage.target, lineage.revision) == ("tester/target", first)


def test_a_single_file_from_the_hub(hub: HubServer, tmp_path: Path) -> None:
    target = tiny_decoder("gpt2")
    target.save_pretrained(tmp_path)
    HfApi().create_repo("tester/single")
    HfApi().upload_folder(repo_id="tester/single", folder_path=tmp_path)
    surrogate = build_surrogate("tester/single", "2-5")
    assert equal_models(surrogate, build_surrogate(target, "2-5"))
    assert read_lineage(surrogate.config).revision == hub.model("tester/single").branches["main"]
