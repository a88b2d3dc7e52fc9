"""Swin: stages of pre-norm blocks over windows, each of which begins with four neighbours of the stage before."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import Table, attention, mlp, norm, patches, read

_FOUR = "residual|residual|residual|residual"
_BLOCK = (
    norm("layernorm_before")
    | attention("attention.")
    | {"attention.relative_position_bias.relative_position_bias_table": Weight("bias", ("offset", "head"))}
    | norm("layernorm_after")
    | mlp("mlp.")
)


def window_stage(stage: int, number: int, prefix: str, block: Table, outer: Table, **more: Any) -> Stream:
    """One stage of blocks over windows, as Swin and Swin-V2 have it.

    Args:
        stage (`int`): Which stage, from 0.
        number (`int`): How many there are.
        prefix (`str`): Pattern of what stands before every name.
        block (`Table`): Weights of a block.
        outer (`Table`): Weights around the blocks, but the patches, the merge of four neighbours and the last norm.
        more: Further fields of the `Stream`.
    """
    last, before = stage == number - 1, f"encoder.layers.{stage - 1}.downsample.reduction.weight"
    first = {before: Weight("embed", ("residual", "source|source|source|source"))}
    if stage == 0:
        first = patches("embeddings.patch_embeddings.projection")
    return Stream(
        prefix=prefix,
        blocks=f"encoder.layers.{stage}.blocks.",
        outer=first | outer | (norm("layernorm") | read("classifier", "label") if last else {}),
        block=block,
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
        **more,
    )


@lru_cache
def _stages(number: int) -> tuple[Stream, ...]:
    def stage(index: int) -> Stream:
        merge = f"encoder.layers.{index}.downsample.norm."
        behind = {f"{merge}weight": Weight("gain", (_FOUR,)), f"{merge}bias": Weight("shift", (_FOUR,))}
        outer = (norm("embeddings.norm") if index == 0 else {}) | (behind if index < number - 1 else {})
        first_norm = None if index else "embeddings.norm"
        return window_stage(index, number, r"(?:swin\.)?", _BLOCK, outer, first_norm=first_norm)

    return tuple(map(stage, range(number)))


SWIN = Family(
    streams=(),
    stages=_stages,
    kind="encoder",
    pooled="norm",
    outside=r"(?!)",
    no_tower="its stages merge patches",
    refused=(("use_absolute_embeddings", True, "its positions stand behind the first norm"),),
)
