"""The table of families says where a model keeps its parts."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, BertConfig

from hf_chain.errors import HfChainError
from hf_chain.families import COMPOSITES
from hf_chain.grafting.anatomy import DECODERS as KNOWN
from hf_chain.grafting.anatomy import (
    decoder_layers,
    final_norm,
    hidden_size,
    layer_prefix,
    lm_logits,
    num_layers,
    text_config,
)
from support.decoders import DECODERS, LAYERS, some_tokens, tiny_decoder


@pytest.mark.parametrize("model_type", DECODERS)
def test_logits_of_the_last_layer_are_the_models(model_type: str) -> None:
    model = tiny_decoder(model_type)
    outputs = []
    layers = decoder_layers(model)
    layers[-1].register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.no_grad():
        expected = model(input_ids=some_tokens()).logits
        hidden = outputs[0] if isinstance(outputs[0], torch.Tensor) else outputs[0][0]
        logits = lm_logits(model, hidden)
    assert len(layers) == num_layers(model.config) == LAYERS
    assert hidden.shape[-1] == hidden_size(model.config)
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)


def test_every_row_has_a_tiny_model() -> None:
    assert DECODERS.keys() == set(KNOWN) | COMPOSITES.keys()


@pytest.mark.parametrize("model_type", DECODERS)
def test_layer_prefix_is_the_one_of_the_state_dict(model_type: str) -> None:
    model = tiny_decoder(model_type)
    prefix = layer_prefix(model.config)
    if model_type == "gemma3":
        assert prefix == layer_prefix(text_config(model.config)) == "model.layers."
    else:
        numbers = {name.removeprefix(prefix).split(".")[0] for name in model.state_dict() if name.startswith(prefix)}
        assert numbers == {str(number) for number in range(LAYERS)}


def test_opt_without_a_final_norm() -> None:
    model = tiny_decoder("opt", do_layer_norm_before=False)
    assert final_norm(model) is None
    hidden = torch.randn(2, 3, 32)
    with torch.no_grad():
        expected = model.lm_head(model.model.decoder.project_out(hidden))
        torch.testing.assert_close(lm_logits(model, hidden), expected)


def test_unknown_family_is_refused_in_one_line() -> None:
    with pytest.raises(HfChainError, match="model_type 'bert' is not known to grafting.*docs/families.md") as caught:
        num_layers(BertConfig())
    assert "\n" not in str(caught.value)


def test_model_without_a_head_is_refused() -> None:
    headless = AutoModel.from_config(tiny_decoder("llama").config)
    with pytest.raises(HfChainError, match="LlamaModel has no language-model head"):
        decoder_layers(headless)
