"""Mixtures of experts: Mixtral, Qwen3-MoE and gpt-oss. Experts are multiplied along with those that a router takes."""

from __future__ import annotations

from hf_chain.families.family import Weight
from hf_chain.families.llama import GATED, HEAD_NORMS, NORMS, relative
from hf_chain.families.weights import attention, read

_ROUTED = read("mlp.gate", "expert") | {
    "mlp.experts.gate_up_proj": Weight("read", ("expert", "mlp|mlp", "residual")),
    "mlp.experts.down_proj": Weight("write", ("expert", "residual", "mlp")),
}

# Layers that are not routed have an MLP.
MIXTRAL = relative(
    block=NORMS | attention("self_attn.") | HEAD_NORMS | GATED | _ROUTED,
)

GPT_OSS = relative(
    block=NORMS
    | attention("self_attn.")
    | {"self_attn.sinks": Weight("bias", ("head",))}
    | read("mlp.router", "expert")
    | {
        "mlp.experts.gate_up_proj": Weight("read", ("expert", "residual", "mlp/mlp")),
        "mlp.experts.gate_up_proj_bias": Weight("bias", ("expert", "mlp/mlp")),
        "mlp.experts.down_proj": Weight("write", ("expert", "mlp", "residual")),
        "mlp.experts.down_proj_bias": Weight("write", ("expert", "residual")),
    }
)
