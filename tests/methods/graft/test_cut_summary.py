"""What a cut saves is said, and a chosen one that saves little is warned about."""

from __future__ import annotations

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.methods.graft.surrogate_stage import saving_line


def target(layers: int) -> LlamaForCausalLM:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "vocab_size": 8}
    return LlamaForCausalLM(LlamaConfig(**shape, num_hidden_layers=layers))


@pytest.mark.parametrize(
    ("layers", "replaced", "criterion", "saved", "warned"),
    [
        (8, "3-6", "two_segment", "37%", False),
        (8, "5-6", "two_segment", "12%", True),
        (8, "5-6", None, "12%", False),
    ],
)
def test_what_is_saved_is_said(
    layers: int, replaced: str, criterion: str | None, saved: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    whole = target(layers)
    # Three of eight layers are left out, or one; the head is next to nothing.
    line = saving_line(whole.config, build_surrogate(whole, replaced).config, criterion)
    assert line == f"{saved} of the language model's MACs are saved"
    assert (f"the cut that two_segment chose saves only {saved}" in caplog.text) == warned
