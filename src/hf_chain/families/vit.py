"""ViT, DeiT and the encoder of ViT-MAE: pre-norm blocks over patches."""

from __future__ import annotations

from dataclasses import replace

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import attention, mlp, norm, patches, read

_STREAM = Stream(
    prefix=r"(?:vit\.|deit\.)?",
    blocks="layers.",
    outer=patches("embeddings.patch_embeddings.projection")
    | {f"embeddings.{token}_token": Weight("embed", ("one", "token", "residual")) for token in ("cls", "distillation")}
    | {"embeddings.mask_token": Weight("embed", ("one", "mask", "residual"))}
    | {"embeddings.position_embeddings": Weight("embed", ("one", "grid", "residual"))}
    | norm("layernorm")
    | read("pooler.dense", "pooled")
    | read("classifier", "label")
    | read("cls_classifier", "label")
    | read("distillation_classifier", "label"),
    block=norm("layernorm_before") | attention("attention.") | norm("layernorm_after") | mlp("mlp."),
    last_norm="layernorm",
    class_tokens=1,
)

VIT = Family(
    streams=(_STREAM,),
    kind="encoder",
    linked=(("pooler_output_size", "hidden_size"),),
    pooled="units",
)
DEIT = replace(VIT, streams=(replace(_STREAM, class_tokens=2),))

# The decoder stays; it reads the encoder's stream.
MAE = Family(
    streams=(
        replace(
            _STREAM,
            prefix=r"(?:vit\.)?(?!decoder\.(?!decoder_embed\.))",
            outer={**_STREAM.outer, **read("decoder.decoder_embed", "kept")},
        ),
    ),
    kind="encoder",
    outside=r"decoder\..*",
    no_tower="it hides patches and shuffles the others (ViTModel reads its folder too)",
)
