"""Which parameters the names of parts stand for."""

from __future__ import annotations

from typing import Any

import pytest

from hf_chain.errors import HfChainError
from hf_chain.models.grafted_vlm import GraftedVLMConfig, GraftedVLMForConditionalGeneration
from hf_chain.trainer.lora import attach_lora
from hf_chain.trainer.parts import freeze_all_but, resolve_parts
from support.grafts import IMAGE_TOKEN, TEXT, VISION, tiny_decoder, tiny_vlm, tiny_vlm_on_a_target

PREFIXES = {
    "adapter": ("adapter.",),
    "image_tokens": ("image_start", "image_end"),
    "encoder": ("vision_tower.",),
    "encoder.last:1": ("vision_tower.encoder.layers.2.",),
    "encoder.last:2": ("vision_tower.encoder.layers.1.", "vision_tower.encoder.layers.2."),
    "decoder.last:2": ("language_model.model.layers.1.", "language_model.model.layers.2."),
    "encoder.post_layernorm": ("vision_tower.post_layernorm.",),
    "translator": ("language_model.model.layers.1.",),
    "decoder": ("language_model.",),
    "language_model.lm_head": ("language_model.lm_head.",),
    "vision_tower.encoder.layers.[01].mlp.*": (
        "vision_tower.encoder.layers.0.mlp.",
        "vision_tower.encoder.layers.1.mlp.",
    ),
    "adapter.0.weight": ("adapter.0.weight",),
}


@pytest.mark.parametrize("name", PREFIXES)
def test_a_part_holds_exactly_its_parameters(name: str) -> None:
    model = tiny_vlm()
    (part,) = resolve_parts(model, {name: 1e-3}, learning_rate=1.0)
    assert part.learning_rate == 1e-3
    expected = [key for key, _ in model.named_parameters() if key.startswith(PREFIXES[name])]
    assert expected and sorted(part.parameters) == sorted(expected)
    freeze_all_but(model, [part])
    assert {key for key, value in model.named_parameters() if value.requires_grad} == set(expected)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("translator", "model.layers.1."),
        ("decoder", ""),
        ("decoder.last:1", "model.layers.2."),
        ("model.norm", "model.norm."),
    ],
)
def test_a_plain_decoder_has_parts_too(name: str, prefix: str) -> None:
    model = tiny_decoder()
    (part,) = resolve_parts(model, [name], learning_rate=5e-5)
    assert part.learning_rate == 5e-5
    assert list(part.parameters) == [key for key, _ in model.named_parameters() if key.startswith(prefix)]


@pytest.mark.parametrize(
    ("vision", "layer", "norm"),
    [
        ({"model_type": "siglip_vision_model"}, "encoder.layers.2.", "post_layernorm."),
        ({"model_type": "dinov2"}, "encoder.layer.2.", "layernorm."),
        ({"model_type": "vit"}, "layers.2.", "layernorm."),
    ],
)
def test_other_vision_towers_have_the_same_parts(vision: dict[str, Any], layer: str, norm: str) -> None:
    config = GraftedVLMConfig(vision_config=VISION | vision, text_config=dict(TEXT), image_token_id=IMAGE_TOKEN)
    model = GraftedVLMForConditionalGeneration(config)
    last, final = resolve_parts(model, ["encoder.last:1", "encoder.post_layernorm"], 1e-4)
    assert last.parameters and all(layer in name for name in last.parameters)
    assert final.parameters and all(name.startswith(f"vision_tower.{norm}") for name in final.parameters)


def test_lora_and_the_decoder_are_apart() -> None:
    model = tiny_vlm_on_a_target()
    attach_lora(model.language_model)
    lora, decoder = resolve_parts(model, ["lora", "decoder"], 1e-4)
    assert all(".lora_" in name for name in lora.parameters) and len(lora.parameters) == 2 * 7 * 3
    assert not any(".lora_" in name for name in decoder.parameters)


def test_parts_may_overlap_at_one_rate_only() -> None:
    model = tiny_vlm()
    (part,) = resolve_parts(model, {"encoder": 1e-4, "encoder.last:2": 1e-4}, 1.0)
    assert part.name == "encoder"
    with pytest.raises(HfChainError, match=r"encoder \(.*0\.0001\) and encoder\.last:2 \(2e-05\) both train vision_t"):
        resolve_parts(model, {"encoder": 1e-4, "encoder.last:2": 2e-5}, 1.0)


def test_a_small_encoder_gives_the_layers_it_has(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_vlm()
    asked, whole = (resolve_parts(model, [name], 1e-4)[0] for name in ("encoder.last:8", "encoder.last:3"))
    assert asked.parameters.keys() == whole.parameters.keys()
    assert "part encoder.last:8: the encoder has 3 layers, and all are trained" in caplog.text


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (tiny_vlm, "adaptor", "part adaptor stands for nothing in GraftedVLM.*: it has adapter, decoder, encoder, .*"),
        (tiny_vlm, "*.layers.9.*", r"it has .*translator, encoder\.last:1 to :3, decoder\.last:1 to :3; or name"),
        (tiny_vlm, "encoder.last:0", "asks for 0 layers"),
        (tiny_vlm, "decoder.last:4", "asks for 4 layers: the decoder has 1 to 3"),
        (
            tiny_decoder,
            "adapter",
            "part adapter stands for nothing in LlamaForCausalLM: it has decoder, translator, decoder.last:1 to :3;",
        ),
        (lambda: tiny_decoder(hf_chain_surrogate=None), "translator", "make the surrogate with hf_chain.build_surr"),
    ],
)
def test_a_part_that_is_not_there_names_those_that_are(model: Any, name: str, message: str) -> None:
    with pytest.raises(HfChainError, match=message) as error:
        resolve_parts(model(), [name], 1e-4)
    assert "\n" not in str(error.value)
