"""CLIP: two pre-norm towers, the image tower with a norm before its first block."""

from __future__ import annotations

from dataclasses import replace

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import attention, mlp, norm

BLOCK = (
    norm("layer_norm1") | attention("self_attn.", "q_proj k_proj v_proj out_proj") | norm("layer_norm2") | mlp("mlp.")
)

_PROJECTION = Weight("read", ("embedding", "residual"))

TEXT_OUTER = {
    "embeddings.token_embedding.weight": Weight("embed", ("vocab", "residual")),
    "embeddings.position_embedding.weight": Weight("embed", ("position", "residual")),
} | norm("final_layer_norm")

TEXT = Stream(
    part="text_config",
    prefix=r"text_model\.|(?=text_projection)",
    blocks="encoder.layers.",
    outer=TEXT_OUTER | {"text_projection.weight": _PROJECTION},
    block=BLOCK,
)

VISION = Stream(
    part="vision_config",
    prefix=r"vision_model\.|(?=visual_projection)",
    blocks="encoder.layers.",
    outer={
        "embeddings.class_embedding": Weight("embed", ("residual",)),
        "embeddings.patch_embedding.weight": Weight("embed", ("residual", "colour", "row", "column")),
        "embeddings.position_embedding.weight": Weight("embed", ("grid", "residual")),
        "visual_projection.weight": _PROJECTION,
    }
    | norm("pre_layrnorm")
    | norm("post_layernorm"),
    block=BLOCK,
    first_norm="pre_layrnorm",
    last_norm="post_layernorm",
    output_is_normed=False,
    class_tokens=1,
)

CLIP = Family(
    streams=(TEXT, VISION),
    kind="dual",
    embedding="projection_dim",
    linked=(("text_config.projection_dim", "projection_dim"), ("vision_config.projection_dim", "projection_dim")),
)

CLIP_TEXT = Family(streams=(replace(TEXT, part="", prefix=r"(?:text_model\.)?"),), kind="encoder", pooled="norm")
CLIP_VISION = Family(
    streams=(replace(VISION, part="", prefix=r"(?:vision_model\.)?"),),
    kind="encoder",
    pooled="norm",
)
