"""DINOv2, with and without registers: ViT with a layer scale behind attention and MLP, and a gated MLP at times."""

from __future__ import annotations

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import attention, mlp, norm, patches

_FIRST, _SECOND = "layer_scale1.lambda1", "layer_scale2.lambda1"
_TOKENS = {
    f"embeddings.{name}": Weight("embed", ("one", "token", "residual")) for name in ("cls_token", "register_tokens")
}

_STREAM = Stream(
    prefix=r"(?:dinov2(?:_with_registers)?\.)?",
    blocks="encoder.layer.",
    outer=patches("embeddings.patch_embeddings.projection")
    | _TOKENS
    | {"embeddings.mask_token": Weight("embed", ("mask", "residual"))}
    | {"embeddings.position_embeddings": Weight("embed", ("one", "grid", "residual"))}
    | norm("layernorm")
    # The class token beside the mean of the patches.
    | {
        "classifier.weight": Weight("read", ("label", "residual|residual")),
        "classifier.bias": Weight("bias", ("label",)),
    },
    block=norm("norm1")
    | attention("attention.", scaled_by=_FIRST)
    | {_FIRST: Weight("scale", ("residual",))}
    | norm("norm2")
    | mlp("mlp.", scaled_by=_SECOND)
    | mlp("mlp.", "gate_proj up_proj down_proj", scaled_by=_SECOND)
    | {_SECOND: Weight("scale", ("residual",))},
    mlp="mlp_ratio",
    last_norm="layernorm",
    class_tokens=1,
    any_size=True,
    spared={"use_mask_token": False},
)

DINOV2 = Family(streams=(_STREAM,), kind="encoder", outside=r"(?!)", pooled="norm")
