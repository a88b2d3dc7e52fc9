"""Swin-V2: as Swin, with reads of the stream itself, norms behind what is written, and attention by cosines."""

from __future__ import annotations

from functools import lru_cache

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.swin import window_stage
from hf_chain.families.weights import Table, mlp, read, write

_SELF = "attention.self."


def _post_norm(name: str) -> Table:
    """A norm of what is put into the stream."""
    return {f"{name}.weight": Weight("post_gain", ("residual",)), f"{name}.bias": Weight("post_shift", ("residual",))}


_BLOCK = (
    read(f"{_SELF}query", "query")
    | read(f"{_SELF}key", "key")
    | read(f"{_SELF}value", "value")
    | {
        f"{_SELF}logit_scale": Weight("bias", ("head", "one", "one")),
        f"{_SELF}continuous_position_bias_mlp.0.weight": Weight("keep"),
        f"{_SELF}continuous_position_bias_mlp.0.bias": Weight("keep"),
        f"{_SELF}continuous_position_bias_mlp.2.weight": Weight("bias", ("head", "offset")),
    }
    | write("attention.output.dense", "context")
    | mlp("", "intermediate.dense output.dense")
    | _post_norm("layernorm_before")
    | _post_norm("layernorm_after")
)


@lru_cache
def _stages(number: int) -> tuple[Stream, ...]:
    def stage(index: int) -> Stream:
        outer = _post_norm(f"encoder.layers.{index - 1}.downsample.norm" if index else "embeddings.norm")
        return window_stage(index, number, r"(?:swinv2\.)?", _BLOCK, outer, cosine=True)

    return tuple(map(stage, range(number)))


SWIN_V2 = Family(
    streams=(),
    stages=_stages,
    kind="encoder",
    outside=r"(?!)",
    no_tower="its stages merge patches",
    pooled="norm",
    refused=(("use_absolute_embeddings", True, "its positions stand behind the first norm"),),
)
