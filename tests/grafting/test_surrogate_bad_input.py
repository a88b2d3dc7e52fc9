"""What cannot be cut is refused in one line that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertModel

from hf_chain.errors import HfChainError
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.ranges import LayerRange
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.models.grafted_vlm.language_models import load_language_model
from support.decoders import tiny_decoder
from support.hub_server import HubServer

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole target in several shards."""
    tiny_decoder("llama").save_pretrained(tmp_path / "target", max_shard_size="40KB")
    return tmp_path / "target"


def refused(message: str, *arguments: object, **options: object) -> None:
    with pytest.raises(HfChainError, match=message) as caught:
        build_surrogate(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ("3-12", "3-12 reaches outside of the model, which has 8 layers: stay in 0-7"),
        ("5-3", "5-3 is empty"),
        ("2-4,4-6", "2-4 and 4-6 overlap"),
        ("2-7", "2-7 replaces the model's last layer"),
        ("3", "3-3 has 1 layers for translators=1, so nothing is dropped"),
        ("middle", "'middle' cannot be read"),
        ([], "no layer range is given"),
        (LayerRange(-3, 4), "-3-4 reaches outside"),
        ((3, 5), r"layer range \(3, 5\) cannot be read: write FIRST-LAST"),
        (range(3, 6, 2), "layer range range.* cannot be read"),
        (range(6, 3), "6-2 is empty"),
        (range(3, 12), "3-11 reaches outside of the model"),
        (None, "layer range None cannot be read"),
        (["2-4", "4-6"], "2-4 and 4-6 overlap"),
    ],
)
def test_ranges(folder: Path, replaced: object, message: str) -> None:
    refused(message, folder, replaced)


def change_config(folder: Path, **fields: object) -> None:
    values = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps(values))


def change_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def shard_of(folder: Path, name: str) -> Path:
    return folder / json.loads((folder / INDEX).read_text())["weight_map"][name]


def test_no_folder(tmp_path: Path) -> None:
    refused("there is no folder .*nowhere: give the folder of a model", tmp_path / "nowhere", "2-5")
    refused("there is no folder ./nowhere", "./nowhere", "2-5")
    (tmp_path / "model.safetensors").write_bytes(b"")
    refused("there is no folder .*model.safetensors", str(tmp_path / "model.safetensors"), "2-5")


def test_a_revision_of_a_folder(folder: Path) -> None:
    message = "revision=v2 is for models on the Hub, and .*target is a folder: leave it out"
    refused(message, folder, "2-5", revision="v2")
    with pytest.raises(HfChainError, match=message):
        load_language_model(folder, revision="v2")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    refused("holds no config.json, so it is no model", tmp_path, "2-5")
    for text in ("", "[]", "{}"):
        (tmp_path / "config.json").write_text(text)
        refused("config.json names no model_type", tmp_path, "2-5")


def test_an_unknown_family(tmp_path: Path) -> None:
    BertModel(BertConfig(hidden_size=8, num_attention_heads=1, intermediate_size=8, vocab_size=9)).save_pretrained(
        tmp_path
    )
    refused("model_type 'bert' is not known to grafting: use one of llama, .*add a family", tmp_path, "2-5")


def test_a_damaged_configuration(folder: Path) -> None:
    change_config(folder, num_hidden_layers="many")
    refused("config.json cannot be read .*num_hidden_layers", folder, "2-5")


def test_a_damaged_generation_configuration(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{")
    refused("generation_config.json cannot be read", folder, "2-5")


def test_only_pickled_weights(folder: Path) -> None:
    for file in (*folder.glob("*.safetensors"), folder / INDEX):
        file.unlink()
    refused("holds no weights", folder, "2-5")
    torch.save({}, folder / "pytorch_model.bin")
    refused("holds pytorch_model.bin and no safetensors, and other files are not read: save it", folder, "2-5")


def test_a_missing_shard(folder: Path) -> None:
    shard = shard_of(folder, "model.layers.6.mlp.up_proj.weight")
    shard.unlink()
    refused(f"lacks its shard {shard.name}: download it again", folder, "2-5")


@pytest.mark.parametrize("damage", ["encrypted", "truncated", "empty", "header", "web page", "pointer"])
def test_a_damaged_shard(folder: Path, damage: str) -> None:
    shard = shard_of(folder, "model.layers.6.mlp.up_proj.weight")
    whole = shard.read_bytes()
    damaged = {
        "encrypted": bytes(byte ^ 0xA5 for byte in whole),
        "truncated": whole[: len(whole) // 2],
        "empty": b"",
        "header": whole[:8] + b"?" + whole[9:],
        "web page": b"<!DOCTYPE html><html>Please log in</html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    }
    shard.write_bytes(damaged[damage])
    told = "is a Git LFS pointer, not the weights: run" if damage == "pointer" else "is no readable safetensors file"
    refused(f"{shard.name} {told}", folder, "2-5")


def test_a_shard_that_is_a_folder(folder: Path) -> None:
    shard = shard_of(folder, "model.norm.weight")
    shard.unlink()
    shard.mkdir()
    refused(f"{shard.name} is no readable safetensors file", folder, "2-5")


def test_an_index_that_names_a_tensor_that_is_not_there(folder: Path) -> None:
    change_index(folder, lambda names: names.update({"model.layers.6.extra.weight": names["model.norm.weight"]}))
    refused(f"{INDEX} of .* says model.layers.6.extra.weight is in .*, but it is not", folder, "2-5")


def test_an_index_that_leaves_something_out(folder: Path) -> None:
    change_index(folder, lambda names: names.pop("model.layers.6.mlp.up_proj.weight"))
    refused("lacks model.layers.6.mlp.up_proj.weight", folder, "2-5")


def test_an_index_that_leaves_a_layer_out(folder: Path) -> None:
    change_index(folder, lambda names: [names.pop(name) for name in list(names) if ".layers.6." in name])
    refused("holds no weights of its layer 6", folder, "2-5")


@pytest.mark.parametrize("text", ["", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}'])
def test_a_damaged_index(folder: Path, text: str) -> None:
    (folder / INDEX).write_text(text)
    refused(f"{INDEX} cannot be read", folder, "2-5")


def test_an_index_that_points_outside(folder: Path) -> None:
    change_index(folder, lambda names: names.update({"model.norm.weight": "../../secrets.safetensors"}))
    refused("names shards outside of its folder", folder, "2-5")


def test_a_configuration_of_another_model(folder: Path) -> None:
    change_config(folder, intermediate_size=64)
    refused("has shape \\[.*\\], but its configuration says \\[.*\\]", folder, "2-5")


def test_a_model_without_a_head(folder: Path) -> None:
    tiny_decoder("llama").model.save_pretrained(folder.parent / "headless")
    refused("lacks lm_head.weight", folder.parent / "headless", "2-5")


def test_a_quantisation_that_is_not_installed(folder: Path) -> None:
    change_config(folder, quantization_config={"quant_method": "hqq", "quant_config": {}, "skip_modules": []})
    refused("cannot be loaded as LlamaForCausalLM: ", folder, "2-5")


def test_an_unknown_dtype(folder: Path) -> None:
    refused("cannot be loaded as LlamaForCausalLM: .*dtype", folder, "2-5", dtype="float31")


def test_a_surrogate_is_not_cut_again(folder: Path, tmp_path: Path) -> None:
    surrogate = build_surrogate(folder, "2-5", output_dir=tmp_path / "surrogate")
    for again in (surrogate, tmp_path / "surrogate"):
        refused("surrogate is a surrogate itself, cut from .*target: cut that one", again, "1-3")


def test_an_output_folder_that_exists(folder: Path, tmp_path: Path) -> None:
    refused("output_dir=.* exists already", folder, "2-5", output_dir=folder)
    (tmp_path / "file").write_text("")
    refused("cannot be written", folder, "2-5", output_dir=tmp_path / "file" / "surrogate")


def test_models_in_memory_that_cannot_be_copied() -> None:
    model = tiny_decoder("llama")
    with torch.device("meta"):
        offloaded = AutoModelForCausalLM.from_config(model.config)
    refused("weights of this LlamaForCausalLM are on disk", offloaded, "2-5")
    refused("a PeftModel cannot be cut", get_peft_model(model, LoraConfig(target_modules=["q_proj"])), "2-5")


@pytest.mark.slow
def test_zero_3(folder: Path) -> None:
    pytest.importorskip("deepspeed")
    from transformers.integrations import HfDeepSpeedConfig

    config = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": 1})
    refused("under ZeRO-3 no process sees whole weights", folder, "2-5")
    del config


def test_a_model_that_is_no_surrogate() -> None:
    with pytest.raises(HfChainError, match="this llama model is no surrogate") as caught:
        read_lineage(tiny_decoder("llama").config)
    assert "\n" not in str(caught.value)
    damaged = tiny_decoder("llama", hf_chain_surrogate={"target": "somewhere"}).config
    with pytest.raises(HfChainError, match="hf_chain_surrogate in the configuration cannot be read"):
        read_lineage(damaged)


def test_the_hub_says_no(hub: HubServer, folder: Path) -> None:
    refused(
        "tester/nothing is no folder, and cannot be fetched from the Hub .*404.*check name", "tester/nothing", "2-5"
    )
    HfApi().create_repo("tester/target")
    HfApi().upload_folder(repo_id="tester/target", folder_path=folder)
    refused("tester/target is no folder, and cannot be fetched .*nowhere", "tester/target", "2-5", revision="nowhere")
    hub.fail("resolve/.*safetensors", 403, times=9)
    refused("tester/target is no folder, and cannot be fetched .*403", "tester/target", "2-5")


def test_only_pickled_weights_on_the_hub(hub: HubServer, folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    HfApi().create_repo("tester/target")
    HfApi().upload_folder(repo_id="tester/target", folder_path=folder, ignore_patterns="model*")
    refused("tester/target holds pytorch_model.bin and no safetensors", "tester/target", "2-5")


def test_a_hub_shard_that_the_index_invents(hub: HubServer, folder: Path) -> None:
    shard_of(folder, "model.norm.weight").unlink()
    HfApi().create_repo("tester/target")
    HfApi().upload_folder(repo_id="tester/target", folder_path=folder)
    refused("tester/target lacks its shard model-", "tester/target", "2-5")


def test_weights_of_two_checkpoints(folder: Path) -> None:
    shard = shard_of(folder, "model.norm.weight")
    weights = load_file(shard)
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, shard)
    refused("model.norm.weight of .* has shape \\[7\\], but its configuration says \\[32\\]", folder, "2-5")
