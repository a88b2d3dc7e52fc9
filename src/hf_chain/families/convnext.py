"""ConvNeXt: stages of blocks that convolve each channel, norm, and add an MLP by a layer scale."""

from __future__ import annotations

from functools import lru_cache

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import norm, patches, read, write

_SCALE = "layer_scale_parameter"
_BLOCK = (
    {
        "dwconv.weight": Weight("depthwise", ("residual", "one", "row", "column")),
        "dwconv.bias": Weight("depthwise", ("residual",)),
    }
    | norm("layernorm")
    | read("pwconv1", "mlp")
    | {"pwconv1.weight": Weight("read", ("mlp", "residual"), scaled_by="layernorm.weight")}
    | write("pwconv2", "mlp", scaled_by=_SCALE)
    | {_SCALE: Weight("scale", ("residual",))}
)


@lru_cache
def _stages(number: int) -> tuple[Stream, ...]:
    stages: list[Stream] = []
    for stage in range(number):
        last, down = stage == number - 1, "downsampling_layer."
        outer = {
            f"encoder.stages.{stage}.{down}1.weight": Weight("embed", ("residual", "source", "row", "column")),
            f"encoder.stages.{stage}.{down}1.bias": Weight("embed", ("residual",)),
        }
        if stage == 0:
            outer = patches("embeddings.patch_embeddings") | norm("embeddings.layernorm")
        behind = norm("layernorm") | read("classifier", "label")
        stream = Stream(
            prefix=r"(?:convnext\.)?",
            blocks=f"encoder.stages.{stage}.layers.",
            outer=outer | (behind if last else norm(f"encoder.stages.{stage + 1}.{down}0")),
            block=_BLOCK,
            first_norm=None if stage else "embeddings.layernorm",
            # Only that of the last norm has a field.
            epsilon=None,
            output_is_normed=False,
            multiples=True,
            stage=stage,
            width="hidden_sizes",
            depth="depths",
            heads="",
            mlp="",
        )
        stages.append(stream)
    return tuple(stages)


CONVNEXT = Family(
    streams=(),
    stages=_stages,
    kind="encoder",
    outside=r"(?!)",
    no_tower="its stages merge patches",
    refused=(("layer_scale_init_value", 0, "no layer scale silences new blocks"),),
)
