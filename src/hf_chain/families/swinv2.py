"""Swin-V2: as Swin, with reads of the stream itself, norms behind what is written, and attention by cosines."""

from __future__ import annotations

from functools import lru_cache

from hf_chain.families.family import Family, Stream, Weight
from hf_chain.families.weights import Table, mlp, norm, patches, read, write

_SELF = "attention.self."
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
)


def _post_norm(name: str) -> Table:
    """A norm of what is put into the stream."""
    return {f"{name}.weight": Weight("post_gain", ("residual",)), f"{name}.bias": Weight("post_shift", ("residual",))}


@lru_cache
def _stages(number: int) -> tuple[Stream, ...]:
    stages: list[Stream] = []
    for stage in range(number):
        last, before = stage == number - 1, f"encoder.layers.{stage - 1}.downsample."
        merged = {f"{before}reduction.weight": Weight("embed", ("residual", "source|source|source|source"))}
        outer = merged | _post_norm(f"{before}norm")
        if stage == 0:
            outer = patches("embeddings.patch_embeddings.projection") | _post_norm("embeddings.norm")
        stream = Stream(
            prefix=r"(?:swinv2\.)?",
            blocks=f"encoder.layers.{stage}.blocks.",
            outer=outer | (norm("layernorm") | read("classifier", "label") if last else {}),
            block=_BLOCK | _post_norm("layernorm_before") | _post_norm("layernorm_after"),
            epsilon=None,
            multiples=True,
            cosine=True,
            stage=stage,
            width_times=2**stage,
            width_again="hidden_size" if last else "",
            period=2,
            width="embed_dim",
            depth="depths",
            heads="num_heads",
            mlp="mlp_ratio",
        )
        stages.append(stream)
    return tuple(stages)


SWIN_V2 = Family(
    streams=(),
    stages=_stages,
    kind="encoder",
    outside=r"(?!)",
    no_tower="its stages merge patches",
    pooled="norm",
    refused=(("use_absolute_embeddings", True, "its positions stand behind the first norm"),),
)
