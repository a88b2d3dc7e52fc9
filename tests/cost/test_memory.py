"""The memory estimate agrees with the tensors autograd saves and with the optimiser's own state."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, CLIPConfig, CLIPModel

from hf_chain.cost import MemoryEstimate, clip_memory, clip_parameters
from hf_chain.errors import HfChainError

IMAGES, CAPTIONS, TOKENS = 8, 3, 20


def saved_bytes(config: CLIPConfig, bf16: bool) -> int:
    """Bytes autograd keeps for the backward pass of both towers, weights left out."""
    model = AutoModel.from_config(config, attn_implementation="sdpa")
    storages = {weight.untyped_storage().data_ptr(): weight.untyped_storage() for weight in model.parameters()}
    weights = set(storages)

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        storages.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage())
        return tensor

    pixels = torch.randn(IMAGES, 3, config.vision_config.image_size, config.vision_config.image_size)
    tokens = torch.randint(0, config.text_config.vocab_size, (IMAGES * CAPTIONS, TOKENS))
    with (
        torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        features = model.get_image_features(pixel_values=pixels), model.get_text_features(input_ids=tokens)
    assert features
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in weights)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_activations_are_what_autograd_saves_within_2_percent(small_config, activation, bf16):
    config = CLIPConfig.from_dict(small_config.to_dict())
    config.vision_config.hidden_act = config.text_config.hidden_act = activation
    estimate = clip_memory(config, IMAGES, captions=CAPTIONS, text_tokens=TOKENS, bf16=bf16)
    autocast_copies = estimate.parameters - 4 * clip_parameters(config)
    assert estimate.activations + autocast_copies == pytest.approx(saved_bytes(config, bf16), rel=0.02)


def test_optimizer_state_is_that_of_adamw(small_config):
    model = CLIPModel(small_config)
    optimizer = torch.optim.AdamW(model.parameters())
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    moments = sum(state[key].nbytes for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq"))
    estimate = clip_memory(small_config, micro_batch=1)
    assert estimate.optimizer == moments
    assert estimate.gradients == estimate.parameters == sum(weight.nbytes for weight in model.parameters())


@pytest.mark.parametrize(
    ("strategy", "divided"),
    [
        ("ddp", set()),
        ("zero1", {"optimizer"}),
        ("zero2", {"optimizer", "gradients"}),
        ("zero3", {"optimizer", "gradients", "parameters"}),
    ],
)
def test_each_zero_stage_shards_one_part_more(paper_config, strategy, divided):
    config = paper_config("S")
    whole = clip_memory(config, 2, teacher=paper_config("T"))
    part = clip_memory(config, 2, teacher=paper_config("T"), strategy=strategy, processes=4)
    for name in ("parameters", "gradients", "optimizer", "activations", "teacher"):
        share = 4 if name in divided else 1
        assert getattr(part, name) == pytest.approx(getattr(whole, name) / share, abs=1)


def test_bfloat16_deepspeed_needs_16_bytes_a_parameter(paper_config):
    estimate = clip_memory(paper_config("T"), 1, bf16=True, strategy="zero2")
    states = estimate.parameters + estimate.gradients + estimate.optimizer
    assert states == 16 * clip_parameters(paper_config("T"))


def test_fewer_image_tokens_and_bfloat16_save_activations(paper_config):
    config = paper_config("B")
    full = clip_memory(config, 4).activations
    assert clip_memory(config, 4, image_token_keep=0.5).activations < full
    assert clip_memory(config, 4, bf16=True).activations < full


def test_total_is_the_sum_of_the_parts():
    assert MemoryEstimate(parameters=1, gradients=2, optimizer=4, activations=8, teacher=16).total == 31


def test_unknown_strategy_and_empty_batch_are_refused(small_config):
    with pytest.raises(HfChainError, match="choose ddp, zero1, zero2, zero3"):
        clip_memory(small_config, 1, strategy="zero4")
    with pytest.raises(HfChainError, match="micro_batch is 0"):
        clip_memory(small_config, 0)
