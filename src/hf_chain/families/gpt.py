"""GPT-2, OPT and GPT-NeoX: layer norms before attention and an MLP without a gate."""

from __future__ import annotations

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import attention, mlp, norm, read, write

_HEAD = {"lm_head.weight": Weight("read", ("vocab", "residual"))}

# Conv1D, transposed.
_GPT_2 = Stream(
    outer={
        "transformer.wte.weight": Weight("embed", ("vocab", "residual")),
        "transformer.wpe.weight": Weight("embed", ("position", "residual")),
    }
    | norm("transformer.ln_f")
    | _HEAD,
    block=norm("ln_1")
    | norm("ln_2")
    | {
        "attn.c_attn.weight": Weight("read", ("residual", "query|key|value")),
        "attn.c_attn.bias": Weight("bias", ("query|key|value",)),
        "attn.c_proj.weight": Weight("write", ("context", "residual")),
        "attn.c_proj.bias": Weight("write", ("residual",)),
        "mlp.c_fc.weight": Weight("read", ("residual", "mlp")),
        "mlp.c_fc.bias": Weight("bias", ("mlp",)),
        "mlp.c_proj.weight": Weight("write", ("mlp", "residual")),
        "mlp.c_proj.bias": Weight("write", ("residual",)),
    },
    blocks="transformer.h.",
    last_norm="transformer.ln_f",
    epsilon="layer_norm_epsilon",
    mlp="n_inner",
)
GPT_2 = Family(
    streams=(_GPT_2,),
    kind="language",
    refused=(("scale_attn_by_inverse_layer_idx", True, "attention depends on the number of the layer"),),
)

# The epsilon of its norms is fixed.
_OPT = Stream(
    outer={
        "model.decoder.embed_tokens.weight": Weight("embed", ("vocab", "residual")),
        "model.decoder.embed_positions.weight": Weight("embed", ("position", "residual")),
    }
    | norm("model.decoder.final_layer_norm")
    | _HEAD,
    block=attention("self_attn.", "q_proj k_proj v_proj out_proj")
    | norm("self_attn_layer_norm")
    | mlp("")
    | norm("final_layer_norm"),
    blocks="model.decoder.layers.",
    last_norm="model.decoder.final_layer_norm",
    epsilon=None,
    mlp="ffn_dim",
)
OPT = Family(
    streams=(_OPT,),
    kind="language",
    refused=(("do_layer_norm_before", False, "its norms stand on the residual stream itself"),),
    project_out="project_out",
    linked=(("word_embed_proj_dim", "hidden_size"),),
)

_GPT_NEOX = Stream(
    outer={"gpt_neox.embed_in.weight": Weight("embed", ("vocab", "residual"))}
    | norm("gpt_neox.final_layer_norm")
    | _HEAD
    | {"embed_out.weight": _HEAD["lm_head.weight"]},
    block=norm("input_layernorm")
    | read("attention.query_key_value", "query/key/value")
    | write("attention.dense", "context")
    | norm("post_attention_layernorm")
    | mlp("mlp.", "dense_h_to_4h dense_4h_to_h"),
    blocks="gpt_neox.layers.",
    last_norm="gpt_neox.final_layer_norm",
    rotary=True,
)
GPT_NEOX = Family(
    streams=(_GPT_NEOX,),
    kind="language",
)
