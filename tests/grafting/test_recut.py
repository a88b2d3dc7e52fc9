"""From a small surrogate to a larger one: the image half and what was trained go along, the rest is the target's."""

from __future__ import annotations

import pytest
import torch

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.graft import graft
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.recut import recut
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.trained_layers import note_trained_layers
from hf_chain.models import GraftedVLMForConditionalGeneration, from_parts
from support.decoders import DECODERS, logits, logits_without, some_tokens, tiny_decoder
from support.grafted_parts import image_processor, tiny_tokenizer, tiny_tower

SMALL, LARGE, DROPPED = "3-6", "5-6", (6,)
"""What the two surrogates replace, and what is in neither of them nor has a translator in the larger one."""
TRAINED = 1
"""The layer that was trained on the smaller one."""


def trained_on_the_small_one(model_type: str) -> GraftedVLMForConditionalGeneration:
    surrogate = build_surrogate(tiny_decoder(model_type), SMALL)
    model = from_parts(tiny_tower(), surrogate, tiny_tokenizer(), image_processor())[0]
    layer = decoder_layers(model.language_model)[TRAINED]
    with torch.no_grad():
        for weight in layer.parameters():
            weight += 0.1
        for weight in model.adapter.parameters():
            weight += 0.1
        model.image_start += 0.1
    mine = {id(weight) for weight in layer.parameters()}
    note_trained_layers(
        model.language_model, [name for name, weight in model.language_model.named_parameters() if id(weight) in mine]
    )
    return model


@pytest.mark.parametrize("model_type", DECODERS)
def test_it_computes_what_the_target_with_the_trained_layer_does_without_the_dropped_ones(model_type: str) -> None:
    small = trained_on_the_small_one(model_type)
    large = recut(small, tiny_decoder(model_type), LARGE)
    grafted = graft(small, tiny_decoder(model_type), tokenizer=tiny_tokenizer())
    expected = logits_without(grafted.language_model, DROPPED, some_tokens())
    torch.testing.assert_close(logits(large.language_model, some_tokens()), expected, rtol=0, atol=0)
    assert (expected - logits(small.language_model, some_tokens())).abs().max() > 1e-3


def test_the_graft_from_either_surrogate_is_the_same() -> None:
    small = trained_on_the_small_one("llama")
    large = recut(small, tiny_decoder("llama"), LARGE)
    one, two = (
        graft(model, tiny_decoder("llama"), tokenizer=tiny_tokenizer()).state_dict() for model in (small, large)
    )
    assert one.keys() == two.keys()
    assert all(torch.equal(two[name], value) for name, value in one.items())
    lineage = read_lineage(large.config)
    assert lineage.trained_layers == (TRAINED,) and lineage.target == read_lineage(small.config).target
    assert [str(span) for span in lineage.replaced] == [LARGE]


def test_the_first_model_stays_as_it_is() -> None:
    small = trained_on_the_small_one("llama")
    before = {name: value.clone() for name, value in small.state_dict().items()}
    large = recut(small, tiny_decoder("llama"), LARGE)
    with torch.no_grad():
        for weight in large.parameters():
            weight += 1
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_a_folder_is_no_target() -> None:
    with pytest.raises(HfChainError, match="target is a str: give the model itself"):
        recut(trained_on_the_small_one("llama"), "some/folder", LARGE)


def test_a_layer_that_the_first_one_kept_is_not_replaced() -> None:
    with pytest.raises(HfChainError, match="layers 2-5 cannot be replaced where 3-6 were before: name some of those"):
        recut(trained_on_the_small_one("llama"), tiny_decoder("llama"), "2-5")
