"""Every loader takes a model whole, finite and without an adapter, or refuses it in one line that names why."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from hf_chain import graft
from hf_chain.errors import HfChainError
from hf_chain.grafting.export_llava import export_llava
from hf_chain.grafting.recut import recut
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.growth import grow
from hf_chain.methods.graft.headline import load_grafted
from hf_chain.models import ChainCLIPModel
from hf_chain.models.chain_clip.published import load_clip, load_clip_config
from hf_chain.models.grafted_vlm import from_parts
from hf_chain.models.grafted_vlm.language_models import load_language_model
from support.decoders import VOCABULARY, tiny_decoder
from support.grafted_parts import image_processor, tiny_parts, tiny_tokenizer, tiny_tower
from support.growth_models import tiny_config, trained_like
from support.pairs import tiny_clip

WEIGHTS = "model.safetensors"


def _join(encoder: Any, decoder: Any) -> Any:
    return from_parts(encoder, decoder, tiny_tokenizer(), image_processor())


def _grafted(folder: Path) -> None:
    model, processor = tiny_parts(decoder_fields={"num_hidden_layers": 8})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


MODELS: dict[str, Callable[[Path], Any]] = {
    "clip": lambda folder: tiny_clip().save_pretrained(folder),
    "decoder": lambda folder: tiny_decoder("llama").save_pretrained(folder),
    "tower": lambda folder: tiny_tower("clip_vision_model").save_pretrained(folder),
    "grafted": _grafted,
}
LOADERS: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "load_clip": ("clip", "visual_projection.weight", lambda folder: load_clip(str(folder))),
    "ChainCLIPModel": ("clip", "visual_projection.weight", ChainCLIPModel.from_pretrained),
    "load_language_model": ("decoder", "model.norm.weight", load_language_model),
    "build_surrogate": ("decoder", "model.norm.weight", lambda folder: build_surrogate(folder, "2-5")),
    "graft, target": (
        "decoder",
        "model.norm.weight",
        lambda folder: graft(_on_surrogate(), folder, tokenizer=tiny_tokenizer(), strict=False),
    ),
    "graft, trained": (
        "grafted",
        "adapter.0.weight",
        lambda folder: graft(folder, tiny_decoder("llama"), strict=False),
    ),
    "load_grafted": ("grafted", "language_model.model.norm.weight", lambda folder: load_grafted(str(folder))),
    "from_parts, encoder": (
        "tower",
        "vision_model.encoder.layers.1.mlp.fc1.weight",
        lambda folder: _join(folder, tiny_decoder("llama")),
    ),
    "from_parts, decoder": ("decoder", "model.norm.weight", lambda folder: _join(tiny_tower(), folder)),
}
"""What reads a folder, the model that it reads, and a weight of it."""


def _on_surrogate() -> PreTrainedModel:
    return tiny_parts(decoder_fields={"num_hidden_layers": 8})[0]


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def change_config(folder: Path, part: str | None, **fields: Any) -> None:
    values = json.loads((folder / "config.json").read_text())
    (values if part is None else values[part]).update(fields)
    (folder / "config.json").write_text(json.dumps(values))


@pytest.fixture(params=LOADERS)
def loader(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str, Callable[[], Any]]:
    kind, weight, load = LOADERS[request.param]
    folder = tmp_path / "model"
    MODELS[kind](folder)
    if weight not in load_file(folder / WEIGHTS):
        weight = next(name for name in load_file(folder / WEIGHTS) if name.endswith(weight.partition(".")[2]))
    return folder, weight, lambda: load(folder)


def refused(load: Callable[[], Any], message: str) -> None:
    with pytest.raises(HfChainError, match=message) as caught:
        load()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(loader: Any, value: float) -> None:
    folder, weight, load = loader
    load()
    change_weights(folder, lambda tensors: tensors[weight].view(-1)[:1].fill_(value))
    refused(load, rf"{weight.removeprefix('vision_model.')} of .* holds NaN or infinity")


def test_missing_weights_are_refused(loader: Any) -> None:
    folder, weight, load = loader
    change_weights(folder, lambda tensors: tensors.pop(weight))
    refused(load, rf"lacks {weight.removeprefix('vision_model.')}: give a whole model")


def test_weights_without_a_place_are_refused(loader: Any) -> None:
    folder, weight, load = loader
    extra = weight.replace("weight", "bias_of_old") if "layers" in weight else f"{weight}_of_old"
    change_weights(folder, lambda tensors: tensors.update({extra: torch.ones(2)}))
    refused(load, r"holds \S*_of_old that its configuration has no place for")


@pytest.mark.parametrize(
    ("kind", "part", "layers"),
    [
        ("clip", "text_config", 0),
        ("clip", "vision_config", 0),
        ("decoder", None, 7),
        ("tower", None, 2),
        ("tower", None, 1),
        ("grafted", "text_config", 2),
        ("grafted", "vision_config", 2),
    ],
)
def test_layers_that_the_configuration_does_not_count_are_not_dropped(
    tmp_path: Path, kind: str, part: str | None, layers: int
) -> None:
    folder = tmp_path / "model"
    MODELS[kind](folder)
    change_config(folder, part, num_hidden_layers=layers)
    for read, _, load in LOADERS.values():
        if read == kind and not (load is LOADERS["graft, trained"][2] and part == "text_config"):
            refused(lambda load=load: load(folder), "has no place for|its configuration ends at layer")


def test_old_buffers_and_other_towers_are_no_surplus(tmp_path: Path) -> None:
    MODELS["clip"](tmp_path / "clip")
    ids = {"text_model.embeddings.position_ids": torch.arange(8)[None]}
    change_weights(tmp_path / "clip", lambda tensors: tensors.update(ids))
    load_clip(str(tmp_path / "clip"))
    for tower in ("clip", "siglip_vision_model", "dinov2", "vit"):
        tiny_tower(tower).save_pretrained(tmp_path / tower)
        from_parts(tmp_path / tower, tiny_decoder("llama"), tiny_tokenizer(), image_processor(), vision_layer=-2)


def test_heads_of_a_published_tower_are_no_surplus_and_any_other_weight_is(tmp_path: Path) -> None:
    heads = ("classifier.weight", "pooler.dense.weight", "vision_model.head.probe", "logit_bias", "logit_scale")
    heads += ("visual_projection.weight", "text_projection.weight", "text_model.final_layer_norm.weight")
    MODELS["tower"](tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.update({head: torch.ones(2) for head in heads}))
    _join(tmp_path, tiny_decoder("llama"))
    change_weights(tmp_path, lambda tensors: tensors.update({"vision_model.registers": torch.ones(2)}))
    refused(lambda: _join(tmp_path, tiny_decoder("llama")), "holds registers that its configuration")


@pytest.mark.parametrize(
    ("quantisation", "message"),
    [
        (
            {"quant_method": "magic"},
            "is quantised by 'magic', which transformers does not know: put quantization_config",
        ),
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True},
            "cannot be loaded.* requires bitsandbytes: .pip install",
        ),
        ("8bit", "cannot be (loaded|read)"),
    ],
)
def test_a_quantisation_that_cannot_be_read_is_not_passed_over(
    tmp_path: Path, quantisation: Any, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for load in ("load_language_model", "build_surrogate", "from_parts, encoder", "load_clip"):
        kind, _, read = LOADERS[load]
        MODELS[kind](tmp_path / load)
        change_config(tmp_path / load, None, quantization_config=quantisation)
        refused(lambda: read(tmp_path / load), message)  # noqa: B023
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_models_in_memory_that_are_not_finite_are_refused() -> None:
    def broken(model: Any) -> Any:
        name = next(
            name for name, weight in model.named_parameters() if name.endswith("mlp.fc1.weight") or "down" in name
        )
        model.get_parameter(name).data.view(-1)[3] = math.nan
        return model

    clip = broken(trained_like(tiny_config()))
    refused(lambda: grow(clip, tiny_config(vision={"num_hidden_layers": 3})), "of the predecessor holds NaN")
    refused(lambda: build_surrogate(broken(tiny_decoder("llama")), "2-5"), "holds NaN")
    refused(lambda: _join(broken(tiny_tower()), tiny_decoder("llama")), "of the encoder .* holds NaN")
    refused(lambda: _join(tiny_tower(), broken(tiny_decoder("llama"))), "holds NaN")
    refused(lambda: graft(_on_surrogate(), broken(tiny_decoder("llama")), strict=False), "holds NaN")
    refused(lambda: graft(broken(_on_surrogate()), tiny_decoder("llama"), strict=False), "holds NaN")


def test_a_tokenizer_with_tokens_that_the_decoder_does_not_embed_is_refused() -> None:
    tokenizer, decoder = tiny_tokenizer(), tiny_decoder("llama")
    tokenizer.add_tokens([f"word{number}" for number in range(VOCABULARY - len(tokenizer))])
    # The image token is never embedded, and may lie outside.
    from_parts(tiny_tower(), decoder, tokenizer, image_processor())
    tokenizer.add_tokens(["one-too-many"])
    refused(
        lambda: from_parts(tiny_tower(), decoder, tokenizer, image_processor()),
        "the tokenizer's 'one-too-many' has the number 48, but the language model embeds 48 tokens",
    )


def test_a_weight_of_another_shape_is_named(tmp_path: Path) -> None:
    for kind, part, load in (
        ("decoder", None, load_language_model),
        ("clip", "vision_config", lambda folder: load_clip(str(folder))),
        ("tower", None, lambda folder: _join(folder, tiny_decoder("llama"))),
    ):
        MODELS[kind](tmp_path / kind)
        change_config(tmp_path / kind, part, intermediate_size=20)
        refused(lambda: load(tmp_path / kind), r"of .* has shape \[.*\], but its configuration says \[")  # noqa: B023


# Adapters


def lora(model: PreTrainedModel) -> Any:
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))


def test_an_adapter_beside_a_model_and_one_alone_are_refused_by_name(loader: Any) -> None:
    folder, _, load = loader
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "some/base", "peft_type": "LORA"})
    )
    refused(load, r"model holds an adapter of some/base \(adapter_config.json\): merge it into the weights")
    (folder / "config.json").unlink()
    refused(load, r"model holds an adapter of some/base \(adapter_config.json\) and no config.json: merge it")


def test_a_gguf_file_alone_is_named(loader: Any) -> None:
    folder, _, load = loader
    (folder / WEIGHTS).rename(folder / "model-q4.gguf")
    refused(load, r"holds model-q4.gguf, a GGUF file, and no safetensors: give the folder")
    (folder / "config.json").unlink()
    refused(load, r"holds model-q4.gguf, a GGUF file, and no config.json: give the folder")


@pytest.mark.parametrize("load", [load_clip_config, load_language_model, load_grafted, lambda name: _join(name, name)])
def test_a_gguf_file_in_place_of_a_folder_is_named(tmp_path: Path, load: Callable[[str], Any]) -> None:
    (tmp_path / "model-q4.gguf").write_bytes(b"GGUF")
    refused(lambda: load(str(tmp_path / "model-q4.gguf")), "model-q4.gguf is a GGUF file, which is not read")


def test_an_adapter_that_a_graft_trainer_left_beside_its_model_is_not_forgotten(tmp_path: Path) -> None:
    _grafted(tmp_path / "model")
    lora(tiny_decoder("llama")).save_pretrained(tmp_path / "model" / "lora")
    refused(
        lambda: load_grafted(str(tmp_path / "model")), "holds an adapter in lora/ that is not in its weights: merge"
    )
    refused(
        lambda: graft(tmp_path / "model", tiny_decoder("llama"), strict=False), "in lora/ that is not in its weights"
    )


def test_an_adapter_inside_a_model_in_memory_is_refused(tmp_path: Path) -> None:
    decoder = lora(tiny_decoder("llama")).get_base_model()
    tower = lora(tiny_tower()).get_base_model()
    clip = lora(trained_like(tiny_config())).get_base_model()
    vlm, processor = tiny_parts(decoder_fields={"num_hidden_layers": 8})
    vlm.language_model = decoder
    inside = r"has an adapter \(\w+ in \S*q_proj\): merge it into the weights"
    refused(lambda: build_surrogate(decoder, "2-5"), inside)
    refused(lambda: _join(tiny_tower(), decoder), inside)
    refused(lambda: _join(tower, tiny_decoder("llama")), inside)
    refused(lambda: graft(_on_surrogate(), decoder, strict=False), inside)
    refused(lambda: graft(vlm, tiny_decoder("llama"), strict=False), inside)
    refused(lambda: recut(vlm, tiny_decoder("llama"), "3-4"), inside)
    refused(lambda: export_llava(vlm, processor, tmp_path / "llava"), inside)
    refused(lambda: grow(clip, tiny_config(vision={"num_hidden_layers": 3})), inside)
    refused(lambda: ChainCLIPModel.from_clip(clip), inside)
    refused(lambda: _join(tiny_tower(), lora(tiny_decoder("llama"))), "the language model is a PeftModel")
    refused(lambda: _join(lora(tiny_tower()), tiny_decoder("llama")), "the encoder is a PeftModel")


class AdapterByHand(torch.nn.Module):
    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.down = torch.nn.Linear(layer.in_features, 2)
        self.up = torch.nn.Linear(2, layer.out_features)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.layer(states) + self.up(self.down(states))


def by_hand(layer: torch.nn.Module, projection: str) -> None:
    setattr(layer, projection, AdapterByHand(getattr(layer, projection)))


def parametrised(layer: torch.nn.Module, projection: str) -> None:
    torch.nn.utils.parametrizations.weight_norm(getattr(layer, projection))


@pytest.mark.parametrize("change", [by_hand, parametrised])
def test_layers_that_the_configuration_does_not_describe_are_refused(change: Any, tmp_path: Path) -> None:
    decoder, tower, clip = tiny_decoder("llama"), tiny_tower(), trained_like(tiny_config())
    vlm, processor = tiny_parts(decoder_fields={"num_hidden_layers": 8})
    change(decoder.model.layers[1].self_attn, "q_proj")
    change(tower.encoder.layers[1].self_attn, "q_proj")
    change(clip.text_model.encoder.layers[0].self_attn, "q_proj")
    change(vlm.language_model.model.layers[1].self_attn, "q_proj")
    other = r"lacks \S*q_proj\.(weight|bias) and has \S*q_proj\.\S+, other than its configuration says"
    refused(lambda: build_surrogate(decoder, "2-5"), other)
    refused(lambda: _join(tiny_tower(), decoder), other)
    refused(lambda: _join(tower, tiny_decoder("llama")), other)
    refused(lambda: graft(_on_surrogate(), decoder, strict=False), other)
    refused(lambda: graft(vlm, tiny_decoder("llama"), strict=False), other)
    refused(lambda: export_llava(vlm, processor, tmp_path / "llava"), other)
    refused(lambda: grow(clip, tiny_config(vision={"num_hidden_layers": 3})), other)


def test_layers_taken_out_of_a_model_in_memory_are_named() -> None:
    decoder = tiny_decoder("llama")
    del decoder.model.layers[5:]
    refused(lambda: _join(tiny_tower(), decoder), r"lacks model\.layers\.5\.\S+, other than its configuration says")
    decoder.config.num_hidden_layers = 4
    refused(lambda: _join(tiny_tower(), decoder), r"has model\.layers\.4\.\S+, other than its configuration says")


# Precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_predecessor_in_half_precision_is_read_and_grown_in_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = tiny_clip().to(dtype)
    stored.save_pretrained(tmp_path / "half")
    model = load_clip(str(tmp_path / "half"))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert all(torch.equal(model.get_parameter(name), weight.float()) for name, weight in stored.named_parameters())
    config = copy.deepcopy(model.config)
    config.vision_config.num_hidden_layers += 1
    grow(model, config).save_pretrained(tmp_path / "grown")
    assert {weight.dtype for weight in load_file(tmp_path / "grown" / WEIGHTS).values()} == {torch.float32}
    assert json.loads((tmp_path / "grown" / "config.json").read_text())["dtype"] == "float32"
