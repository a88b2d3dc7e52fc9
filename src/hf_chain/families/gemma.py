"""Gemma: gains count from one, the embedding is multiplied by √D, and Gemma-2 and 3 have norms behind their blocks."""

from __future__ import annotations

from hf_chain.families.llama import GATED, HEAD_NORMS, NORMS, relative
from hf_chain.families.weights import attention, norm

_BEHIND = (
    norm("input_layernorm")
    | norm("post_attention_layernorm", "post_gain")
    | norm("pre_feedforward_layernorm")
    | norm("post_feedforward_layernorm", "post_gain")
)

GEMMA = relative(block=NORMS | attention("self_attn.") | GATED, gain_offset=1.0, embedding_power=0.5)
GEMMA_2 = relative(block=_BEHIND | attention("self_attn.") | HEAD_NORMS | GATED, gain_offset=1.0, embedding_power=0.5)
"""Gemma-3's text models too, whose heads have norms."""
