"""MACs of language models and vision towers agree with what torch counts while they run."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM

from hf_chain.cost.macs import decoder_macs, encoder_macs, image_tokens
from hf_chain.cost.steps import piece_macs
from hf_chain.models.grafted_vlm import GraftedVLMConfig

SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
DECODERS = {
    "llama": SIZES | HEADS,
    "gemma2": SIZES | HEADS,
    "qwen3": SIZES | HEADS,
    "olmo2": SIZES | {"num_attention_heads": 4},
    "gpt_neox": SIZES | {"num_attention_heads": 4},
    "opt": {"vocab_size": 96, "hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 80, "num_hidden_layers": 3}
    | {"num_attention_heads": 4},
    "mixtral": SIZES | HEADS | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": SIZES
    | HEADS
    | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
    | {"decoder_sparse_step": 2},
    "gpt2": {"vocab_size": 96, "n_embd": 32, "n_layer": 3, "n_head": 4},
}
TOWER = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
ENCODERS = {
    "clip_vision_model": 1,
    "siglip_vision_model": 0,
    "dinov2": 1,
    "dinov2_with_registers": 5,
    "vit": 1,
    "deit": 2,
}


@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_agrees_with_the_flop_counter(family):
    config = CONFIG_MAPPING[family](**DECODERS[family])
    # Which experts run is known with real weights alone.
    device = "cpu" if family in ("mixtral", "qwen3_moe") else "meta"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    if device == "cpu":
        model.set_experts_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, 10, dtype=torch.long, device=device))
    # Rotary tables are matrix products to the counter.
    assert 2 * decoder_macs(config, 10) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_fewer_layers_and_no_head_cost_less():
    config = CONFIG_MAPPING["llama"](**DECODERS["llama"])
    whole = decoder_macs(config, 10)
    layer = decoder_macs(config, 10, layers=[1], head=False)
    assert whole - decoder_macs(config, 10, head=False) == 10 * 32 * 96
    assert whole == 3 * layer + 10 * 32 * 96


def test_of_the_experts_only_the_chosen_count():
    experts = {"num_local_experts": 8, "num_experts_per_tok": 2}
    config = CONFIG_MAPPING["mixtral"](**SIZES, **HEADS, **experts)
    dense = CONFIG_MAPPING["mixtral"](**SIZES, **HEADS, num_local_experts=2, num_experts_per_tok=2)
    router = 10 * 32 * (8 - 2) * 3
    assert decoder_macs(config, 10) == decoder_macs(dense, 10) + router


@pytest.mark.parametrize(("family", "extra"), ENCODERS.items())
def test_a_vision_tower_agrees_with_the_flop_counter(family, extra):
    config = CONFIG_MAPPING[family](**TOWER, image_size=32, patch_size=8, vision_use_head=False)
    with torch.device("meta"):
        model = AutoModel.from_config(config, attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=torch.empty(1, 3, 32, 32, device="meta"))
    assert image_tokens(config) == 16 + extra
    assert 2 * encoder_macs(config) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_a_naflex_tower_agrees_with_the_flop_counter():
    config = CONFIG_MAPPING["siglip2_vision_model"](**TOWER, patch_size=8, num_patches=16, vision_use_head=False)
    with torch.device("meta"):
        model = AutoModel.from_config(config, attn_implementation="eager").eval()
    shapes = torch.tensor([[4, 4]])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        pixels, mask = torch.zeros(1, 16, 3 * 8 * 8), torch.ones(1, 16, dtype=torch.long)
        model.to_empty(device="cpu")(pixel_values=pixels, pixel_attention_mask=mask, spatial_shapes=shapes)
    assert image_tokens(config) == 16
    assert 2 * encoder_macs(config) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_images_may_be_wider_than_high():
    config = CONFIG_MAPPING["vit"](**TOWER, image_size=(16, 24), patch_size=8)
    with torch.device("meta"):
        model = AutoModel.from_config(config, attn_implementation="eager", add_pooling_layer=False).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pixel_values=torch.empty(1, 3, 16, 24, device="meta"))
    assert image_tokens(config) == 7
    assert 2 * encoder_macs(config) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_what_counts_is_the_size_of_images_that_are_processed():
    """Not that of the published configuration, for towers that take any size."""
    configured, processed = (CONFIG_MAPPING["dinov2"](**TOWER, image_size=pixels, patch_size=8) for pixels in (64, 16))
    text = CONFIG_MAPPING["llama"](**DECODERS["llama"])
    resized = GraftedVLMConfig(vision_config=configured, text_config=text, image_size=16)
    own = GraftedVLMConfig(vision_config=processed, text_config=text)
    assert encoder_macs(resized) == encoder_macs(own) < encoder_macs(configured)
    pieces = [piece_macs(config, 8, images=1) for config in (resized, own)]
    assert pieces[0] == pieces[1] and sum(list(pieces[0].values())[:4]) == encoder_macs(own)
    assert image_tokens(resized) == resized.tokens_per_image
