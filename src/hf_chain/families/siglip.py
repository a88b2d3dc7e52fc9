"""SigLIP and SigLIP-2: no norm before the first block, and attention pooling whose output is the embedding itself."""

from __future__ import annotations

from dataclasses import replace

from hf_chain.families.clip import BLOCK, TEXT_OUTER
from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import mlp, norm, patches, read, write

# What it projects to is compared with the stream of the pooling head, and turns as that does.
_TEXT = Stream(
    part="text_config",
    prefix=r"text_model\.",
    blocks="encoder.layers.",
    outer=TEXT_OUTER | read("head", "rotated"),
    block=BLOCK,
)

_VISION = Stream(
    part="vision_config",
    prefix=r"vision_model\.",
    blocks="encoder.layers.",
    outer=patches("embeddings.patch_embedding")
    | {"embeddings.position_embedding.weight": Weight("embed", ("grid", "residual"))}
    | norm("post_layernorm"),
    block=BLOCK,
    last_norm="post_layernorm",
    spared={"vision_use_head": False},
)

# A stream of its own: attention reads the tower, with a learnt query, and the MLP adds to what it found.
_POOLING = Stream(
    part="vision_config",
    prefix=r"vision_model\.head\.",
    outer={
        "probe": Weight("probe", ("one", "token", "residual")),
        "attention.in_proj_weight": Weight("read", ("query|key|value", "residual")),
        "attention.in_proj_bias": Weight("bias", ("query|key|value",)),
    }
    | write("attention.out_proj", "context")
    | norm("layernorm")
    | mlp("mlp."),
    block={},
    output_is_stream=True,
)

SIGLIP = Family(
    streams=(_TEXT, _VISION, _POOLING),
    kind="dual",
    reads_padding=True,
    linked=(("text_config.projection_size", "vision_config.hidden_size"),),
)

SIGLIP_TEXT = Family(streams=(replace(_TEXT, part="", prefix=r"(?:text_model\.)?"),), kind="encoder")
SIGLIP_VISION = Family(
    streams=(
        replace(_VISION, part="", prefix=r"(?:vision_model\.)?(?!head\.)"),
        replace(_POOLING, part="", prefix=r"(?:vision_model\.)?head\."),
    ),
    kind="encoder",
    pooled="stream",
)
