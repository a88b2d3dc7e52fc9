"""The target in memory, for what is measured against it."""

from __future__ import annotations

from transformers import AutoModelForCausalLM, PreTrainedModel

from hf_chain.stages.graft.grafted import on_gpus
from hf_chain.stages.graft.workplace import Workplace


def load_target(place: Workplace) -> PreTrainedModel:
    """The language model that surrogates are cut from and measured against, on the GPUs where there are some."""
    settings, loading = place.recipe.target, on_gpus()
    if settings.attn_implementation is not None:
        loading["attn_implementation"] = settings.attn_implementation
    target = AutoModelForCausalLM.from_pretrained(
        place.target_source, revision=settings.revision, dtype=settings.dtype, **loading
    )
    return target.eval()
