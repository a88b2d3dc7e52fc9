"""Layers of the target that were trained on its surrogate: a graft carries them along, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.graft import graft
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.trained_layers import carry_layers, note_trained_layers
from hf_chain.models import GraftedVLMForConditionalGeneration, from_parts
from hf_chain.trainer.lora import attach_lora
from support.decoders import DECODERS, logits, logits_without, some_tokens, tiny_decoder
from support.grafted_parts import image_processor, tiny_tokenizer, tiny_tower

REPLACED, DROPPED, TRAINED = "3-6", (4, 5, 6), {1: 1, 4: 7}
"""Numbers of the trained layers: on the surrogate, and in the target."""


def on_a_surrogate(target: PreTrainedModel | Path) -> GraftedVLMForConditionalGeneration:
    """An untrained model."""
    return from_parts(tiny_tower(), build_surrogate(target, REPLACED), tiny_tokenizer(), image_processor())[0]


def trained_on_a_surrogate(target: PreTrainedModel | Path) -> GraftedVLMForConditionalGeneration:
    """A model two of whose decoder's layers were trained."""
    model = on_a_surrogate(target)
    decoder = model.language_model
    changed = [weight for layer in TRAINED for weight in decoder_layers(decoder)[layer].parameters()]
    with torch.no_grad():
        for weight in changed:
            weight += 0.1
    mine = {id(weight) for weight in changed}
    note_trained_layers(decoder, [name for name, weight in decoder.named_parameters() if id(weight) in mine])
    return model


@pytest.mark.parametrize("model_type", DECODERS)
def test_the_graft_computes_what_the_surrogate_did_where_dropped_layers_do_nothing(
    model_type: str, tmp_path: Path
) -> None:
    """For every family, from a folder and in memory; untouched layers are the target's."""
    target = tiny_decoder(model_type)
    trained = trained_on_a_surrogate(target)
    for part in (trained, tiny_tokenizer()):
        part.save_pretrained(tmp_path)
    expected = logits(trained.language_model, some_tokens())
    original = graft(on_a_surrogate(target), target, tokenizer=tiny_tokenizer()).language_model
    assert (expected - logits_without(original, DROPPED, some_tokens())).abs().max() > 1e-2
    for source in (trained, tmp_path):
        grafted = graft(source, tiny_decoder(model_type), tokenizer=tiny_tokenizer()).language_model
        torch.testing.assert_close(logits_without(grafted, DROPPED, some_tokens()), expected, rtol=0, atol=0)
        for number, (after, before) in enumerate(zip(decoder_layers(grafted), decoder_layers(original), strict=True)):
            same = [torch.equal(*pair) for pair in zip(after.parameters(), before.parameters(), strict=True)]
            assert not any(same) if number in TRAINED.values() else all(same)


def test_what_came_along_is_told(tmp_path: Path) -> None:
    tiny_decoder("llama").save_pretrained(tmp_path)
    trained = trained_on_a_surrogate(tmp_path)
    assert read_lineage(trained.config).trained_layers == tuple(TRAINED.values())
    grafted = graft(trained, tiny_decoder("llama"), tokenizer=tiny_tokenizer())
    assert grafted.config.hf_chain_graft["surrogate"]["trained_layers"] == list(TRAINED.values())


def test_a_lineage_of_before_says_that_nothing_was_trained() -> None:
    surrogate = build_surrogate(tiny_decoder("llama"), REPLACED)
    del surrogate.config.hf_chain_surrogate["trained_layers"]
    assert read_lineage(surrogate.config).trained_layers == ()
    target = tiny_decoder("llama")
    carry_layers(surrogate, target)
    assert all(
        torch.equal(*pair) for pair in zip(target.parameters(), tiny_decoder("llama").parameters(), strict=True)
    )


def test_a_target_that_cannot_take_them_is_refused() -> None:
    trained = trained_on_a_surrogate(tiny_decoder("llama"))
    quantised = tiny_decoder("llama")
    quantised.config.quantization_config = {"quant_method": "fp8"}
    with pytest.raises(HfChainError, match="layer 1 was trained on the surrogate, and is quantised in the target"):
        carry_layers(trained.language_model, quantised)
    offloaded = tiny_decoder("llama")
    offloaded.model.layers[1].to("meta")
    with pytest.raises(HfChainError, match="layer 1 was trained on the surrogate, and is offloaded in the target"):
        carry_layers(trained.language_model, offloaded)
    attach_lora(trained.language_model, {"r": 2})
    with pytest.raises(HfChainError, match="layer 1 of the target does not take .*: merge adapters first"):
        carry_layers(trained.language_model, tiny_decoder("llama"))
