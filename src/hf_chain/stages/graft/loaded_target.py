"""The target in memory: to cut it, to measure against it, to put an image half on it."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from hf_chain.stages.graft.workplace import Workplace


def load_target(place: Workplace, **loading: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The language model that the encoder is meant for, in the type and at the revision that the recipe says.

    Args:
        place (`Workplace`): the run.
        loading: more arguments of `from_pretrained`, such as `device_map`.

    Returns:
        The model in evaluation mode, and its tokenizer.
    """
    settings, source = place.recipe.target, place.target_source
    if settings.attn_implementation is not None:
        loading["attn_implementation"] = settings.attn_implementation
    target = AutoModelForCausalLM.from_pretrained(source, revision=settings.revision, dtype=settings.dtype, **loading)
    return target.eval(), AutoTokenizer.from_pretrained(source, revision=settings.revision)
