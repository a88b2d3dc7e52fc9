"""The analytic counts agree with what torch counts while a stock CLIPModel runs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, CLIPConfig, CLIPModel, CLIPVisionModel

from hf_chain.cost import clip_macs, clip_parameters, kept_patches
from hf_chain.errors import HfChainError


def build(config: CLIPConfig) -> CLIPModel:
    """The model without memory behind its weights: the FLOP counter only looks at shapes."""
    with torch.device("meta"):
        return AutoModel.from_config(config, attn_implementation="eager")


def inputs(config: CLIPConfig, tokens: int) -> dict[str, torch.Tensor]:
    size = config.vision_config.image_size
    return {
        "pixel_values": torch.empty(1, 3, size, size, device="meta"),
        "input_ids": torch.zeros(1, tokens, dtype=torch.long, device="meta"),
    }


@pytest.fixture(params=["small", "T", "S", "B", "L"])
def config(request, small_config, paper_config) -> CLIPConfig:
    return small_config if request.param == "small" else paper_config(request.param)


def test_parameters_are_those_of_the_stock_model(config):
    assert clip_parameters(config) == sum(weight.numel() for weight in build(config).parameters())
    with torch.device("meta"):
        tower = CLIPVisionModel(config.vision_config)
    assert clip_parameters(config.vision_config) == sum(weight.numel() for weight in tower.parameters())


@pytest.mark.parametrize("tokens", [None, 9])
def test_both_towers_agree_with_the_flop_counter(config, tokens):
    macs = clip_macs(config, text_tokens=tokens)
    model, batch = build(config), inputs(config, tokens or config.text_config.max_position_embeddings)
    with FlopCounterMode(display=False) as image, torch.no_grad():
        model.get_image_features(pixel_values=batch["pixel_values"])
    with FlopCounterMode(display=False) as text, torch.no_grad():
        model.get_text_features(input_ids=batch["input_ids"])
    assert 2 * macs.image == pytest.approx(image.get_total_flops(), rel=0.01)
    assert 2 * macs.text == pytest.approx(text.get_total_flops(), rel=0.01)


def test_a_training_step_costs_three_forwards(config):
    macs, vision = clip_macs(config).per_sample(captions=1), config.vision_config
    pixel_gradient = 3 * vision.image_size**2 * vision.hidden_size
    with FlopCounterMode(display=False) as counter:
        output = build(config)(**inputs(config, config.text_config.max_position_embeddings))
        output.logits_per_image.sum().backward()
    # The rule of three forwards counts a gradient of the pixels that nobody needs.
    assert 2 * (3 * macs - pixel_gradient) == pytest.approx(counter.get_total_flops(), rel=0.001)


@pytest.mark.parametrize("keep", [0.25, 0.5])
def test_dropped_image_tokens_leave_only_the_kept_ones_in_the_encoder(paper_config, keep):
    config = paper_config("S")
    model, width = build(config), config.vision_config.hidden_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.vision_model.embeddings(torch.empty(1, 3, 224, 224, device="meta"))
        model.vision_model.encoder(inputs_embeds=torch.empty(1, 1 + int(196 * keep), width, device="meta"))
    flops = counter.get_total_flops() + 2 * width * config.projection_dim
    assert 2 * clip_macs(config, image_token_keep=keep).image == pytest.approx(flops, rel=0.001)


def test_at_least_one_patch_is_kept():
    assert kept_patches(64, 0.001) == 1
    assert kept_patches(64, 1.0) == 64


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.01])
def test_an_impossible_share_of_tokens_is_refused(small_config, keep):
    with pytest.raises(HfChainError, match="image_token_keep"):
        clip_macs(small_config, image_token_keep=keep)


@pytest.mark.parametrize("tokens", [0, 25])
def test_a_caption_outside_the_context_is_refused(small_config, tokens):
    with pytest.raises(HfChainError, match="choose 1 to 24"):
        clip_macs(small_config, text_tokens=tokens)
