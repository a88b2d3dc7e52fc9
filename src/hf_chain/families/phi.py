"""Phi-1 and 2, with one layer norm before attention and MLP, and Phi-3, with fused projections."""

from __future__ import annotations

from hf_chain.families.family import Weight
from hf_chain.families.llama import FUSED_GATE, NORMS, OUTER, relative
from hf_chain.families.weights import attention, mlp, norm, write

PHI = relative(
    outer={name: weight for name, weight in OUTER.items() if "norm" not in name} | norm("model.final_layernorm"),
    block=norm("input_layernorm") | attention("self_attn.", "q_proj k_proj v_proj dense") | mlp("mlp."),
    norm="layer",
    epsilon="layer_norm_eps",
    head_size="",
    last_norm="model.final_layernorm",
    refused=(("qk_layernorm", True, "its norms of queries and keys are not described"),),
)

PHI_3 = relative(
    block=NORMS
    | {"self_attn.qkv_proj.weight": Weight("read", ("query|key|value", "residual"))}
    | write("self_attn.o_proj", "context")
    | FUSED_GATE
)
