"""Every field of a configuration that goes by a layer's number is rewritten."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hf_chain.errors import HfChainError
from hf_chain.grafting.layer_config import surrogate_config, surrogate_module
from support.decoders import DECODERS

KEPT = (0, 1, 3, 4, 7)
PLACES = {layer: place for place, layer in enumerate(KEPT)}
FULL, SLIDING = "full_attention", "sliding_attention"


def config_of(model_type: str, **fields: Any) -> PreTrainedConfig:
    return CONFIG_MAPPING[model_type](**(DECODERS[model_type] | fields))


@pytest.mark.parametrize("model_type", DECODERS)
def test_only_the_layers_change(model_type: str) -> None:
    target = config_of(model_type)
    before = target.to_dict()
    new = surrogate_config(target, PLACES)
    assert target.to_dict() == before
    old = target.get_text_config()
    assert type(new) is type(old) and new.num_hidden_layers == len(KEPT)
    changed = {name for name, value in new.to_dict().items() if old.to_dict().get(name) != value}
    by_layer = {"num_hidden_layers", "n_layer", "layer_types", "max_window_layers"}
    by_layer |= {"no_rope_layers", "first_k_dense_replace", "decoder_sparse_step", "mlp_only_layers"}
    assert changed <= by_layer | {"dtype"}
    assert type(new).from_dict(new.to_dict()).to_dict() == new.to_dict()


def test_windows_follow_their_layers() -> None:
    assert surrogate_config(config_of("gemma2"), PLACES).layer_types == [SLIDING, FULL, FULL, SLIDING, FULL]
    gemma3 = surrogate_config(config_of("gemma3"), PLACES)
    assert gemma3.layer_types == [SLIDING] * 5
    assert not hasattr(gemma3, "sliding_window_pattern")
    assert surrogate_config(config_of("mistral"), PLACES).sliding_window == 4


def test_positions_and_experts_follow_their_layers() -> None:
    target = config_of("smollm3")
    assert surrogate_config(target, PLACES).no_rope_layers == [target.no_rope_layers[layer] for layer in KEPT]
    # The first three layers of the target are dense, of which two are kept.
    assert surrogate_config(config_of("deepseek_v3"), PLACES).first_k_dense_replace == 2


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_max_window_layers_says_what_layer_types_says(model_type: str) -> None:
    new = surrogate_config(
        config_of(model_type, use_sliding_window=True, sliding_window=4, max_window_layers=4), PLACES
    )
    assert new.max_window_layers == 3
    assert new.layer_types == [FULL, FULL, FULL, SLIDING, SLIDING]
    derived = type(new).from_dict({name: value for name, value in new.to_dict().items() if name != "layer_types"})
    assert derived.layer_types == new.layer_types


def test_dense_layers_among_experts_stay_dense() -> None:
    # Layers 0, 2, 4 and 6 are dense by the step of 2, layer 3 by the list.
    new = surrogate_config(config_of("qwen3_moe"), PLACES)
    assert (new.decoder_sparse_step, new.mlp_only_layers) == (1, [0, 2, 3])


def test_what_a_composite_model_says_for_all_its_parts() -> None:
    target = config_of("gemma3", dtype="bfloat16", tie_word_embeddings=False)
    new = surrogate_config(target, PLACES)
    assert str(new.dtype).endswith("bfloat16") and new.tie_word_embeddings is False


def test_remote_code_is_not_announced() -> None:
    target = config_of("phi3", auto_map={"AutoConfig": "configuration_phi3.Phi3Config"})
    assert not hasattr(surrogate_config(target, PLACES), "auto_map")


def test_attention_scaled_by_the_layers_number_is_refused() -> None:
    target = config_of("gpt2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(HfChainError, match="scale_attn_by_inverse_layer_idx=True scales attention by"):
        surrogate_config(target, PLACES)


def test_quantisation_names_the_surrogates_modules() -> None:
    quantisation = {
        "quant_method": "gptq",
        "bits": 4,
        "modules_to_not_convert": ["lm_head", "model.layers.2.mlp", "model.layers.7.mlp.gate", "layers.3"],
        "ignore": [rf"re:.*layers\.{layer}\..*" for layer in ("4", "5", r"\d+", "[0-9]+")],
        "dynamic": {"*layers.1.*": {"bits": 8}, "*layers.6.*": {"bits": 2}},
    }
    new = surrogate_config(config_of("llama", quantization_config=quantisation), PLACES).quantization_config
    assert new == {
        "quant_method": "gptq",
        "bits": 4,
        "modules_to_not_convert": ["lm_head", "model.layers.4.mlp.gate", "layers.2"],
        "ignore": [rf"re:.*layers\.{layer}\..*" for layer in ("3", r"\d+", "[0-9]+")],
        "dynamic": {"*layers.1.*": {"bits": 8}},
    }


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_quantisation_of_a_composite_model(prefix: str) -> None:
    names = [f"{prefix}layers.4.self_attn", f"{prefix}layers.5.mlp", "vision_tower", "lm_head"]
    target = config_of("gemma3", quantization_config={"quant_method": "fp8", "modules_to_not_convert": names})
    new = surrogate_config(target, PLACES).quantization_config
    assert new["modules_to_not_convert"] == ["model.layers.3.self_attn", "vision_tower", "lm_head"]


# The numbers of the kept layers of a target with twenty.
DEEP = {layer: place for place, layer in enumerate([0, 2, 3, 12, 15, 18, 19])}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"+:.*\.18\..*gate.*", r"+:.*\.5\..*gate.*"),
        (r"-:.*\.17\..*gate.*", None),
        (r"re:.*layers\.3\.(mlp|self_attn)\..*", r"re:.*layers\.2\.(mlp|self_attn)\..*"),
        (r"re:.*layers\.12\.mlp\.fused_w13", r"re:.*layers\.3\.mlp\.fused_w13"),
        ("*layers.19.*", "*layers.6.*"),
        ("re:.*layers.3$", "re:.*layers.2$"),
        (r"re:.*\.(?:1[0-9]|[0-9])\..*", r"re:.*\.(?:1[0-9]|[0-9])\..*"),
        (r"re:.*layers\.\d+\..*gate_proj", r"re:.*layers\.\d+\..*gate_proj"),
        ("re:.*dense_4h_to_h", "re:.*dense_4h_to_h"),
        ("gptqmodel:1.4.0", "gptqmodel:1.4.0"),
    ],
)
def test_a_pattern_of_one_layer_or_of_all_is_the_surrogates(pattern: str, expected: str | None) -> None:
    assert surrogate_module(config_of("llama", num_hidden_layers=20), DEEP, pattern) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        r"re:.*layers\.(5|6)\..*",
        r"re:.*(layers\.3|layers\.5)\..*",
        r"re:.*layers\.1\d\..*",
        r"re:.*layers\.\d\..*",
        r"re:.*\.(?:1[0-5]|[0-9])\..*",
        "re:.*layers.1",
        "layers.1*",
        "*layers.?.mlp",
        r"re:.*(layers\.4\.|lm_head).*",
        r"re:.*layers\.[35]\.mlp\.fused",
    ],
)
def test_a_pattern_of_some_layers_is_refused_in_one_line(pattern: str) -> None:
    target = config_of(
        "llama", num_hidden_layers=20, quantization_config={"quant_method": "gptq", "ignore": [pattern]}
    )
    with pytest.raises(HfChainError, match="names layers by the pattern.*write one entry") as caught:
        surrogate_config(target, DEEP)
    assert "\n" not in str(caught.value)


def test_a_pattern_over_a_composite_models_own_names_is_refused() -> None:
    for pattern, kept in ((r"re:.*language_model\.layers\.3\..*", False), ("re:vision_tower.*", True)):
        quantisation = {"quant_method": "gptq", "ignore": [pattern]}
        target = config_of("gemma3", quantization_config=quantisation)
        with nullcontext() if kept else pytest.raises(HfChainError, match="names layers by the pattern"):
            assert surrogate_config(target, PLACES).quantization_config["ignore"] == [pattern]
