"""GLM-4: RMS norms before and behind attention and MLP, whose gate is fused; part of a head is turned."""

from __future__ import annotations

from hf_chain.families.llama import FUSED_GATE, NORMS, relative
from hf_chain.families.weights import attention, norm

GLM_4 = relative(
    block=NORMS
    | attention("self_attn.")
    | norm("post_self_attn_layernorm", "post_gain")
    | FUSED_GATE
    | norm("post_mlp_layernorm", "post_gain")
)
