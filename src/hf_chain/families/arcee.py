"""Arcee: a Llama whose MLP has no gate."""

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import attention, mlp, norm, read

STREAM = Stream(
    outer={"model.embed_tokens.weight": Weight("embed", ("vocab", "residual"))}
    | norm("model.norm")
    | read("lm_head", "vocab"),
    block=norm("input_layernorm")
    | norm("post_attention_layernorm")
    | attention("self_attn.", "q_proj k_proj v_proj o_proj")
    | mlp("mlp.", "up_proj down_proj"),
    blocks="model.layers.",
    norm="rms",
    last_norm="model.norm",
    epsilon="rms_norm_eps",
    head_size="head_dim",
    rotary=True,
)
ARCEE = Family(streams=(STREAM,), kind="language")
