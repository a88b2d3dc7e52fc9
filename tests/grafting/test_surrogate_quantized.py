"""Quantised checkpoints: BitNet's stays packed, FP8 is widened where there is no GPU, as transformers does it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.integrations.bitnet import pack_weights

from hf_chain.grafting.surrogate import build_surrogate
from support.decoders import some_tokens, tiny_decoder

KEPT = (0, 1, 4, 5, 7)
WIDE = ("model.layers.2.mlp", "model.layers.7.self_attn.q_proj")
Packed = Callable[[torch.Tensor], dict[str, torch.Tensor]]


def quantised(folder: Path, config: dict[str, Any], pack: Packed) -> Path:
    """Writes a target whose projections are packed, `WIDE` ones excepted."""
    model = tiny_decoder("llama", hidden_size=128, intermediate_size=128, num_key_value_heads=4, dtype="bfloat16")
    model.config.quantization_config = config | {"modules_to_not_convert": ["lm_head", *WIDE]}
    weights: dict[str, torch.Tensor] = {}
    for name, weight in model.to(torch.bfloat16).state_dict().items():
        if "_proj" not in name or name.startswith(WIDE):
            weights[name] = weight.clone()
        else:
            weights |= {name.removesuffix("weight") + part: packed for part, packed in pack(weight.float()).items()}
    folder.mkdir()
    model.config.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def bitnet(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    scale = 1 / weight.abs().mean()
    signs = (weight * scale).round().clamp(-1, 1)
    return {"weight": pack_weights(signs), "weight_scale": scale.reshape(1).to(torch.bfloat16)}


def fp8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    scale = weight.abs().max() / 448
    return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale_inv": scale.reshape(1, 1)}


def test_packed_layers_stay_packed(tmp_path: Path) -> None:
    config = {"quant_method": "bitnet", "linear_class": "bitlinear", "quantization_mode": "offline"}
    target = quantised(tmp_path / "target", config, bitnet)
    surrogate = build_surrogate(target, "1-3,5-6", output_dir=tmp_path / "surrogate")
    names = ["lm_head", "model.layers.4.self_attn.q_proj"]
    assert surrogate.config.quantization_config.to_dict()["modules_to_not_convert"] == names
    held, written = load_file(target / "model.safetensors"), load_file(tmp_path / "surrogate" / "model.safetensors")
    for place, layer in enumerate(KEPT):
        of_layer = {name: weight for name, weight in held.items() if name.startswith(f"model.layers.{layer}.")}
        assert any(weight.dtype is torch.uint8 for weight in of_layer.values())
        for name, weight in of_layer.items():
            assert torch.equal(written[name.replace(f".{layer}.", f".{place}.", 1)], weight), name
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "surrogate", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    state = surrogate.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in loaded.state_dict().items())


@pytest.mark.skipif(torch.cuda.is_available(), reason="transformers widens FP8 on machines without a GPU alone")
@torch.no_grad()
def test_widened_layers_say_so(tmp_path: Path) -> None:
    config = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    target = quantised(tmp_path / "target", config, fp8)
    surrogate = build_surrogate(target, "1-3,5-6", output_dir=tmp_path / "surrogate")
    whole = AutoModelForCausalLM.from_pretrained(target)
    for place, layer in enumerate(KEPT):
        state = whole.model.layers[layer].state_dict()
        for name, weight in surrogate.model.layers[place].state_dict().items():
            assert weight.dtype is torch.bfloat16 and torch.equal(weight, state[name]), name
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path / "surrogate", output_loading_info=True)
    assert not hasattr(loaded.config, "quantization_config")
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(loaded(some_tokens()).logits, surrogate(some_tokens()).logits)
