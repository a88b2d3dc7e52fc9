"""MACs of every family agree with what torch counts while a model runs."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hf_chain.cost.macs import decoder_macs, encoder_macs
from hf_chain.families import family_of
from hf_chain.growth.measure import random_inputs
from support.decoders import DECODERS, some_tokens, tiny_decoder
from support.families import ROWS

BESIDE = ("vit", "vit_mae", "siglip_vision_model", "clip_vision_model")
"""Models that run more than their layers: a pooler, a decoder, attention pooling, a projection."""
TOWERS = [
    name
    for name, row in ROWS.items()
    if family_of(row.config()).kind == "encoder" and "image_size" in row.sizes and name not in BESIDE
]


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_decoder_costs_what_torch_counts(model_type: str) -> None:
    model = tiny_decoder(model_type)
    model.set_attn_implementation("eager")
    # Grouped products of experts are not counted.
    model.config.get_text_config()._experts_implementation = "eager"
    tokens = some_tokens(rows=1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=tokens, use_cache=False)
    # Rotary tables are products of matrices to the counter.
    assert 2 * decoder_macs(model.config, tokens.shape[1]) == pytest.approx(counter.get_total_flops(), rel=0.02)


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_costs_what_torch_counts(name: str) -> None:
    model = ROWS[name].trained_like()
    model.set_attn_implementation("eager")
    inputs = random_inputs(model, torch.Generator().manual_seed(0), batch=1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs)
    assert 2 * encoder_macs(model.config) == pytest.approx(counter.get_total_flops(), rel=0.03)
