"""Llama and its relatives: RMS norms before attention and a gated MLP, rotary positions, grouped queries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import attention, mlp, norm

OUTER = {
    "model.embed_tokens.weight": Weight("embed", ("vocab", "residual")),
    "lm_head.weight": Weight("read", ("vocab", "residual")),
    "lm_head.bias": Weight("bias", ("vocab",)),
} | norm("model.norm")

HEAD_NORMS = {f"self_attn.{axis[0]}_norm.weight": Weight("head_gain", (axis,)) for axis in ("query", "key")}
"""Norms of the queries and keys of each head, as Qwen3 has them."""

NORMS = norm("input_layernorm") | norm("post_attention_layernorm")
GATED = mlp("mlp.", "gate_proj up_proj down_proj")
FUSED_GATE = mlp("mlp.", "down_proj", reads={"gate_up_proj": "mlp|mlp"})

STREAM = Stream(
    outer=OUTER,
    block=NORMS | attention("self_attn.") | HEAD_NORMS | GATED,
    blocks="model.layers.",
    norm="rms",
    last_norm="model.norm",
    epsilon="rms_norm_eps",
    rotary=True,
    head_size="head_dim",
)

LLAMA = Family(
    streams=(STREAM,),
    kind="language",
    per_layer=("layer_types", "no_rope_layers"),
)


def relative(refused: tuple[tuple[str, Any, str], ...] = (), **changes: Any) -> Family:
    """Llama's family with other values of its stream.

    Args:
        refused (`tuple`): Fields, values and reasons of members that growth cannot describe.
        changes: Fields of the stream.
    """
    return replace(LLAMA, streams=(replace(STREAM, **changes),), refused=refused)
