"""Any decoder-only language model, ready to become a part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


def load_language_model(
    model: str | Path | PreTrainedModel, dtype: torch.dtype | None = None, **loading: Any
) -> PreTrainedModel:
    """A language model with its head; of a composite model, such as Gemma-3, the language model.

    Args:
        model (`str`, `Path` or `PreTrainedModel`): folder, Hub name, or a model in memory, which is used as it is.
        dtype (`torch.dtype`, *optional*): of its weights; as they are by default.
        loading: arguments of `from_pretrained`.

    Returns:
        `PreTrainedModel`: the model that was given, unless that is a composite one.

    Raises:
        HfChainError: when it cannot be loaded or has no head.
    """
    if not isinstance(model, PreTrainedModel):
        try:
            model = AutoModelForCausalLM.from_pretrained(str(model), dtype=dtype or "auto", **loading)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise cannot_load("language model", model, error) from error
    elif dtype is not None and model.dtype != dtype:
        model = model.to(dtype)
    if model.get_output_embeddings() is None:
        raise HfChainError(f"{type(model).__name__} has no language-model head: load it with AutoModelForCausalLM")
    config = model.config.get_text_config(decoder=True)
    return model if config is model.config else _text_model(model, config)


def _text_model(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        text = AutoModelForCausalLM.from_config(config)
    setattr(text, text.base_model_prefix, model.get_decoder())
    text.set_output_embeddings(model.get_output_embeddings())
    text.generation_config = model.generation_config
    return text


def load_tokenizer(name: str | Path, **loading: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub name.

    Args:
        name (`str` or `Path`): folder or Hub name.
        loading: arguments of `from_pretrained`, such as `revision`.

    Raises:
        HfChainError: when it cannot be loaded.
    """
    try:
        return AutoTokenizer.from_pretrained(str(name), **loading)
    except (OSError, ValueError) as error:
        raise cannot_load("tokenizer", name, error) from error


def cannot_load(what: str, name: object, error: Exception) -> HfChainError:
    """The error for a part that transformers does not load, in one line."""
    reason = " ".join(str(error).split())[:200].rstrip(". ")
    return HfChainError(f"{what} {name} cannot be loaded, {reason}: give a folder or a Hub name")
