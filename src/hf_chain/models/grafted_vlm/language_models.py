"""Any decoder-only language model, ready to become a part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from hf_chain.adapters import HUB, check_model_files, check_no_adapter
from hf_chain.errors import HfChainError, reason
from hf_chain.loaded_weights import check_loaded, read_model, require_finite

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
        HfChainError: when it cannot be loaded, has no head, has an adapter, or has weights that are missing, too many
            or not finite.
    """
    if isinstance(model, (str, Path)):
        model = load_causal_lm(model, dtype or "auto", **loading)
    elif not isinstance(model, PreTrainedModel):
        raise HfChainError(
            f"the language model is a {type(model).__name__}: give a transformers model, its folder or its Hub name"
        )
    else:
        name = model.name_or_path or type(model).__name__
        check_no_adapter(model, name)
        require_finite(model, name)
        if dtype is not None and model.dtype != dtype:
            model = model.to(dtype)
    if model.get_output_embeddings() is None:
        raise HfChainError(f"{type(model).__name__} has no language-model head: load it with AutoModelForCausalLM")
    config = model.config.get_text_config(decoder=True)
    return model if config is model.config else _text_model(model, config)


def load_causal_lm(name: str | Path, dtype: str | torch.dtype = "auto", **loading: Any) -> PreTrainedModel:
    """The model of a folder or Hub name, as `AutoModelForCausalLM` reads it, with all its weights and no more.

    Args:
        name (`str` or `Path`): folder or Hub name.
        dtype (`str` or `torch.dtype`): of its weights; as they are by default.
        loading: arguments of `from_pretrained`.

    Raises:
        HfChainError: when it cannot be loaded, has an adapter beside it, or has weights that are missing, too many or
            not finite.
    """
    check_model_files(name, **{option: loading[option] for option in (*HUB, "subfolder") if option in loading})
    with named_errors("language model", name):
        model, report = read_model(AutoModelForCausalLM, str(name), dtype=dtype, **loading)
    check_loaded(model, report, str(name))
    return model


def _text_model(model: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        text = AutoModelForCausalLM.from_config(config)
    setattr(text, text.base_model_prefix, model.get_decoder())
    text.set_output_embeddings(model.get_output_embeddings())
    text.generation_config = model.generation_config
    return text


def load_tokenizer(name: str | Path, **loading: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hub name, which pads on the left.

    Args:
        name (`str` or `Path`): folder or Hub name.
        loading: arguments of `from_pretrained`, such as `revision`.

    Raises:
        HfChainError: when it cannot be loaded.
    """
    with named_errors("tokenizer", name):
        return padding_left(AutoTokenizer.from_pretrained(str(name), **loading))


def padding_left(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer itself, which pads on the left, also once it is saved: an answer goes on where its prompt ends."""
    tokenizer.padding_side = "left"
    # What is saved is what a tokenizer was made with.
    tokenizer.init_kwargs["padding_side"] = "left"
    return tokenizer


@contextmanager
def named_errors(what: str, name: object) -> Iterator[None]:
    """Says in one line which part cannot be loaded, whatever transformers and the libraries below it raise.

    Args:
        what (`str`): the part.
        name (`str`): its folder or Hub name.

    Raises:
        HfChainError: instead of any other error.
    """
    try:
        yield
    except HfChainError:
        raise
    except Exception as error:
        # What has to be installed is a remedy already.
        remedy = "" if isinstance(error, ImportError) else ": give a folder or a Hub name"
        raise HfChainError(f"{what} {name} cannot be loaded, {reason(error)}{remedy}") from error
