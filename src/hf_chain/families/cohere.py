"""Llama's layout with layer norms: Cohere, whose norms have no offset, StarCoder2 and StableLM."""

from __future__ import annotations

from hf_chain.families.llama import GATED, NORMS, relative
from hf_chain.families.weights import attention, mlp

COHERE = relative(
    refused=(("use_qk_norm", True, "its norms of queries and keys are not described"),),
    block=NORMS | attention("self_attn.") | GATED,
    norm="layer",
    epsilon="layer_norm_eps",
)
STABLELM = relative(
    refused=(("qk_layernorm", True, "its norms of queries and keys are not described"),),
    block=NORMS | attention("self_attn.") | GATED,
    norm="layer",
    epsilon="layer_norm_eps",
    head_size="",
)
STARCODER_2 = relative(
    block=NORMS | attention("self_attn.") | mlp("mlp.", "c_fc c_proj"), norm="layer", epsilon="norm_epsilon"
)
