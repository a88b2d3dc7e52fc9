"""A shape that growth cannot reach is refused in one line that says what to do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import VisionTextDualEncoderConfig, ViTModel

from hf_chain.errors import HfChainError
from hf_chain.growth import embedding_error, grow, growth_error, nearest_exact_config
from hf_chain.growth.larger import larger_config
from support.families import ROWS
from support.growth_models import TEXT, VISION, tiny_config, trained_like


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("text", {"vocab_size": 39}, "text_config.vocab_size=39"),
        ("text", {"max_position_embeddings": 6}, "text_config.max_position_embeddings=6"),
        ("text", {"eos_token_id": 5}, "text_config.eos_token_id=5"),
        ("text", {"hidden_act": "gelu"}, "text_config.hidden_act='gelu'"),
        ("vision", {"hidden_act": "gelu"}, "vision_config.hidden_act='gelu'"),
        ("vision", {"image_size": 4}, "vision_config.image_size=4"),
        ("vision", {"patch_size": 2}, "vision_config.patch_size=2"),
        ("vision", {"num_channels": 1}, "vision_config.num_channels=1"),
        ("text", {"hidden_size": 8}, "text_config.hidden_size=8"),
        ("vision", {"hidden_size": 12}, "vision_config.hidden_size=12"),
        ("vision", {"num_hidden_layers": 1}, "vision_config.num_hidden_layers=1"),
        ("vision", {"intermediate_size": 16}, "vision_config.intermediate_size=16"),
        ("vision", {"num_attention_heads": 2}, "vision_config.num_attention_heads=2"),
        ("vision", {"hidden_size": 48, "num_attention_heads": 8}, "use at most 6 heads"),
    ],
)
def test_an_impossible_successor_is_refused(part: str, change: dict[str, Any], said: str) -> None:
    with pytest.raises(HfChainError) as error:
        grow(trained_like(tiny_config()), tiny_config(**{part: change}))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "use" in str(error.value)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    config = tiny_config()
    config.vision_config.num_attention_heads = 5
    with pytest.raises(HfChainError, match="num_attention_heads=5: choose a number of heads that divides the width"):
        grow(trained_like(tiny_config()), config)


def test_a_smaller_embedding_is_refused() -> None:
    with pytest.raises(HfChainError, match="projection_dim=10 is smaller than the predecessor's 12"):
        grow(trained_like(tiny_config()), tiny_config(embedding=10))


def test_what_is_no_clip_is_refused() -> None:
    model = trained_like(tiny_config())
    for predecessor, config, said in (
        ("runs/tiny", model.config, "the predecessor is a str: give a PreTrainedModel"),
        (model.vision_model, model.config, "the configuration is a CLIPConfig: give a CLIPVisionConfig"),
        (model, model.config.vision_config, "the configuration is a CLIPVisionConfig: give a CLIPConfig"),
    ):
        with pytest.raises(HfChainError, match=said):
            grow(predecessor, config)


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(HfChainError, match="operator='exakt' is unknown: use one of exact, copy"):
        grow(trained_like(tiny_config()), tiny_config(), "exakt")


def test_copy_allows_smaller_heads() -> None:
    config = tiny_config(vision={"hidden_size": 48, "num_attention_heads": 8})
    assert grow(trained_like(tiny_config()), config, "copy").config.vision_config.num_attention_heads == 8


@pytest.mark.parametrize(("wished", "nearest"), [(27, 48), (36, 48), (57, 48), (60, 72), (63, 72)])
def test_the_nearest_exact_configuration_is_exact(wished: int, nearest: int) -> None:
    predecessor = trained_like(tiny_config())
    config = tiny_config({"hidden_size": 20}, {"hidden_size": wished, "intermediate_size": 60})
    advised = nearest_exact_config(predecessor.config, config)
    assert advised.vision_config.hidden_size == nearest
    assert advised.vision_config.num_attention_heads == nearest // 8
    assert advised.text_config.to_dict() == config.text_config.to_dict()
    assert max(embedding_error(predecessor, grow(predecessor, advised)).values()) < 1e-9


def test_an_exact_configuration_is_its_own_advice() -> None:
    config = tiny_config(TEXT | {"hidden_size": 22}, VISION | {"hidden_size": 72})
    assert nearest_exact_config(tiny_config(), config).to_dict() == config.to_dict()


def test_a_model_with_other_parts_than_its_class_builds_is_refused() -> None:
    config = ROWS["vit"].config()
    with pytest.raises(HfChainError, match="the predecessor lacks pooler.dense.bias, other than its configuration"):
        grow(ViTModel(config, add_pooling_layer=False), ROWS["vit"].config("width"))
    with pytest.raises(HfChainError, match="embeddings.mask_token"):
        grow(ViTModel(config, use_mask_token=True), ROWS["vit"].config("width"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"text_config": {"num_hidden_layers": 3}},
            "text_config.num_hidden_layers=3 differs .*, as norms on the stream",
        ),
        ({"text_config": {"vocab_size": 50}}, "text_config.vocab_size=50 differs from the predecessor's 40"),
        ({"vision_config": {"model_type": "deit"}}, "vision_config.model_type='deit' differs: give the .*'vit'"),
    ],
)
def test_a_dual_encoder_keeps_its_kinds_of_towers_and_a_bert_as_it_is(changes: dict[str, Any], said: str) -> None:
    sizes = ROWS["dual encoder of vit and bert"].sizes
    config = VisionTextDualEncoderConfig(
        **{part: {**sizes[part], **changes.get(part, {})} for part in sizes if "config" in part}, projection_dim=12
    )
    with pytest.raises(HfChainError, match=said):
        grow(ROWS["dual encoder of vit and bert"].trained_like(), config)


def test_a_quantised_model_is_refused() -> None:
    model = ROWS["llama"].trained_like()
    model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    with pytest.raises(HfChainError, match="the predecessor is quantised: grow the model that it was made of"):
        grow(model, ROWS["llama"].config("width"))
    model = ROWS["llama"].trained_like()
    model.model.norm.weight = torch.nn.Parameter(torch.ones(24, dtype=torch.int8), requires_grad=False)
    with pytest.raises(HfChainError, match="the predecessor is quantised"):
        grow(model, ROWS["llama"].config("width"))


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("llama", "hidden_act", "gelu"),
        ("llama", "rope_parameters", {"rope_type": "default", "rope_theta": 77.0}),
        ("llama", "attention_bias", False),
        ("qwen3", "tie_word_embeddings", True),
        ("phi", "partial_rotary_factor", 1.0),
        ("granite", "residual_multiplier", 0.3),
        ("gemma2", "query_pre_attn_scalar", 7),
        ("mixtral", "sliding_window", 4),
        ("gpt2", "scale_attn_weights", False),
        ("dinov2", "layerscale_value", 0.1),
        ("vit", "qkv_bias", False),
        ("swin", "window_size", 8),
        ("convnext", "patch_size", 4),
    ],
)
def test_what_is_no_size_stays(name: str, field: str, value: Any) -> None:
    predecessor, config = ROWS[name].trained_like(), ROWS[name].config("depth")
    setattr(config, field, value)
    with pytest.raises(HfChainError, match=f"{field}=.* differs from the predecessor's .*: growth keeps it"):
        grow(predecessor, config)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("swin", {"depths": [2, 3, 2]}, r"depths\[1\]=3 is not a multiple of 2, by which blocks take turns: use 4"),
        ("swin", {"depths": [2, 2]}, "num_layers=2 differs from the predecessor's 3: growth keeps it, use 3"),
        ("convnext", {"depths": [2, 2]}, r"depths=\[2, 2\] is of 2 stages: the predecessor has 3, use as many"),
        ("swin", {"num_heads": [2, 8, 8]}, r"num_heads\[1\]=8 makes heads of size 3, smaller .*: use at most 4 heads"),
        (
            "swinv2",
            {"embed_dim": 24},
            "heads of size 12 of 6, and cosines of queries and keys need the size: use 4 heads$",
        ),
        ("swin", {"mlp_ratio": 3.0}, "mlp_ratio=3.0 is smaller than the predecessor's 4.0: use 4.0 or more"),
        ("convnext", {"hidden_sizes": [24, 12, 36]}, r"hidden_sizes=.* is smaller .* in a stage: use as much or more"),
    ],
)
def test_stages_that_growth_cannot_reach_are_refused(name: str, changes: dict[str, Any], said: str) -> None:
    config = type(ROWS[name].config())(**ROWS[name].sizes | changes)
    with pytest.raises(HfChainError, match=said):
        grow(ROWS[name].trained_like(), config)


@pytest.mark.parametrize(
    ("name", "field", "value", "said"),
    [
        ("convnext", "hidden_sizes", [24], r"hidden_sizes=\[24\] has another number of stages than its .*: give 3"),
        ("swin", "depths", ["a", 2, 2], r"depths=\['a', 2, 2\] is of another kind than its present \[2, 2, 2\]"),
    ],
)
def test_stages_of_another_kind_are_refused(name: str, field: str, value: Any, said: str) -> None:
    with pytest.raises(HfChainError, match=said):
        larger_config(ROWS[name].config(), {field: value})


def test_a_ratio_may_be_given_as_a_whole_number() -> None:
    assert larger_config(ROWS["swinv2"].config(), {"mlp_ratio": 5}).mlp_ratio == 5.0


@pytest.mark.parametrize(
    ("name", "field", "value", "nearest"),
    [
        ("swin", "embed_dim", 18, {"embed_dim": 24, "num_heads": [4, 8, 16], "hidden_size": 96}),
        ("convnext", "hidden_sizes", [18, 24, 80], {"hidden_sizes": [24, 24, 72]}),
    ],
)
def test_the_nearest_exact_stages_are_told(
    name: str, field: str, value: Any, nearest: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    predecessor = ROWS[name].trained_like()
    config = larger_config(predecessor.config, {field: value})
    advised = nearest_exact_config(predecessor.config, config)
    assert {field: getattr(advised, field) for field in nearest} == nearest
    assert max(growth_error(predecessor, grow(predecessor, advised)).values()) < 1e-6
    assert not caplog.records
    with caplog.at_level("WARNING", logger="hf_chain"):
        grow(predecessor, config)
    assert f"{field}={value} is not a multiple" in caplog.text
    assert f"the nearest is {field}={nearest[field]}" in caplog.text and len(caplog.records) == 1


def test_a_grown_model_grows_again_with_its_own_epsilon() -> None:
    row = ROWS["llama"]
    second = grow(row.trained_like(), row.config("width"))
    third = row.config("width")
    third.num_hidden_layers = 3
    assert third.rms_norm_eps != second.config.rms_norm_eps
    grown = grow(second, third)
    assert grown.config.rms_norm_eps == second.config.rms_norm_eps
    assert growth_error(second, grown)["logits"] == 0


@pytest.mark.parametrize("name", ["dinov2", "convnext"])
def test_new_blocks_that_were_not_trained_grow_again(name: str) -> None:
    row = ROWS[name]
    second = grow(row.trained_like(), row.config("depth"))
    config = larger_config(second.config, row.grown["width"])
    assert growth_error(second, grow(second, config))["features"] < 1e-4


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mixtral", {"num_experts_per_tok": 1}),
        ("mixtral", {"num_local_experts": 6}),
        ("mixtral", {"num_local_experts": 5, "num_experts_per_tok": 3}),
        ("qwen3_moe", {"num_experts_per_tok": 3}),
    ],
)
def test_a_router_that_would_take_another_share_is_refused(name: str, changes: dict[str, int]) -> None:
    config = ROWS[name].config("depth")
    for field, value in changes.items():
        setattr(config, field, value)
    with pytest.raises(HfChainError, match="cannot be reached from 3 with 2: multiply both by the same whole number"):
        grow(ROWS[name].trained_like(), config)
