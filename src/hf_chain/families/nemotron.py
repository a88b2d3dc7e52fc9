"""Nemotron: norms that add 1 to their gains, an MLP without a gate, heads that positions turn in part."""

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import attention, mlp, norm, read

STREAM = Stream(
    outer={"model.embed_tokens.weight": Weight("embed", ("vocab", "residual"))}
    | norm("model.norm")
    | read("lm_head", "vocab"),
    block=norm("input_layernorm")
    | attention("self_attn.")
    | norm("post_attention_layernorm")
    | mlp("mlp.", "up_proj down_proj"),
    blocks="model.layers.",
    last_norm="model.norm",
    epsilon="norm_eps",
    gain_offset=1.0,
    rotary=True,
    head_size="head_dim",
)
NEMOTRON = Family(
    streams=(STREAM,),
    kind="language",
)
