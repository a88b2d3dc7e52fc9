"""Swin: stages of pre-norm blocks over windows, each of which begins with four neighbours of the stage before."""

from __future__ import annotations

from functools import lru_cache

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import attention, mlp, norm, patches, read

_FOUR = "residual|residual|residual|residual"
_TABLE = {"attention.relative_position_bias.relative_position_bias_table": Weight("bias", ("offset", "head"))}


@lru_cache
def _stages(number: int) -> tuple[Stream, ...]:
    stages: list[Stream] = []
    for stage in range(number):
        last, name = stage == number - 1, f"encoder.layers.{stage}."
        merged = Weight("embed", ("residual", "source|source|source|source"))
        outer = {f"encoder.layers.{stage - 1}.downsample.reduction.weight": merged}
        if stage == 0:
            outer = patches("embeddings.patch_embeddings.projection") | norm("embeddings.norm")
        behind = {
            f"{name}downsample.norm.weight": Weight("gain", (_FOUR,)),
            f"{name}downsample.norm.bias": Weight("shift", (_FOUR,)),
        }
        stream = Stream(
            prefix=r"(?:swin\.)?",
            blocks=f"{name}blocks.",
            outer=outer | (norm("layernorm") | read("classifier", "label") if last else behind),
            block=norm("layernorm_before") | attention("attention.") | _TABLE | norm("layernorm_after") | mlp("mlp."),
            first_norm=None if stage else "embeddings.norm",
            # Those of the patches and between the stages are fixed.
            epsilon=None,
            multiples=True,
            stage=stage,
            width_times=2**stage,
            width_again="hidden_size" if last else "",
            # Every second block shifts its windows.
            period=2,
            width="embed_dim",
            depth="depths",
            heads="num_heads",
            mlp="mlp_ratio",
        )
        stages.append(stream)
    return tuple(stages)


SWIN = Family(
    streams=(),
    stages=_stages,
    kind="encoder",
    pooled="norm",
    outside=r"(?!)",
    no_tower="its stages merge patches",
    refused=(("use_absolute_embeddings", True, "its positions stand behind the first norm"),),
)
