"""Running a part of a decoder gives what the whole one computes there, and runs nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.ranges import LayerRange
from hf_chain.grafting.translator.truncated import truncated, without_layers
from support.decoders import DECODERS, some_tokens, tiny_decoder


def count_calls(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@torch.no_grad()
@pytest.mark.parametrize("model_type", DECODERS)
def test_states_are_those_of_the_whole_model(model_type: str) -> None:
    model, tokens = tiny_decoder(model_type), some_tokens()
    whole = model(input_ids=tokens, output_hidden_states=True).hidden_states
    with truncated(model, [4, 2]):
        states = model(input_ids=tokens)
    torch.testing.assert_close(states, [whole[5], whole[3]])


@torch.no_grad()
def test_nothing_after_the_last_layer_runs() -> None:
    model = tiny_decoder("llama")
    layers = decoder_layers(model)
    before, after, head = count_calls(layers[3]), count_calls(layers[4]), count_calls(model.lm_head)
    with truncated(model, [3]):
        model(input_ids=some_tokens())
    assert (len(before), len(after), len(head)) == (1, 0, 0)


@torch.no_grad()
def test_model_is_as_before_afterwards() -> None:
    model, tokens = tiny_decoder("llama"), some_tokens()
    expected = model(input_ids=tokens).logits
    with (
        pytest.raises(RuntimeError, match="interrupted"),
        truncated(model, [3]),
        without_layers(model, [LayerRange(1, 2)]),
    ):
        raise RuntimeError("interrupted")
    torch.testing.assert_close(model(input_ids=tokens).logits, expected, rtol=0, atol=0)
    assert "forward" not in vars(model)


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["llama", "gemma2", "gpt2", "opt"])
def test_layers_are_left_out(model_type: str) -> None:
    model, tokens = tiny_decoder(model_type), some_tokens()
    with without_layers(model, [LayerRange(2, 3), LayerRange(5, 5)]):
        states = model(input_ids=tokens, output_hidden_states=True).hidden_states
    torch.testing.assert_close(states[4], states[2], rtol=0, atol=0)
    torch.testing.assert_close(states[6], states[5], rtol=0, atol=0)
    assert not torch.equal(states[5], states[4])
