"""Loading of CLIP models that this run did not make: predecessors, and models to grow or evaluate."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoProcessor, CLIPConfig, CLIPModel, CLIPProcessor

from hf_chain.adapters import check_model_files
from hf_chain.errors import HfChainError, reason
from hf_chain.loaded_weights import check_loaded, read_model

OLD_END_TOKEN = 2


def load_clip_config(name_or_path: str) -> CLIPConfig:
    """Configuration of a published CLIP model.

    Args:
        name_or_path (`str`): folder or Hub name.

    Raises:
        HfChainError: when there is none, or it is that of another architecture, whose weights would stay random.
    """
    check_model_files(name_or_path)
    is_path = name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1
    if is_path and not Path(name_or_path).is_dir():
        raise HfChainError(f"There is no folder {name_or_path}: give that of a CLIP model, or a Hub name")
    try:
        config = AutoConfig.from_pretrained(name_or_path)
    except Exception as error:  # The Hub, JSON and configuration classes raise errors of their own.
        raise _not_loaded(name_or_path, error) from error
    if not isinstance(config, CLIPConfig):
        raise HfChainError(f"{name_or_path} is a {config.model_type} model, no clip model: give a CLIP dual encoder")
    return config


def load_clip(name_or_path: str, attn_implementation: str | None = None, end_token: int | None = None) -> CLIPModel:
    """A published CLIP model with all its weights, which are read from safetensors only, in float32.

    It is grown, trained and compared in that type, also where it is stored in half precision.

    Args:
        name_or_path (`str`): folder or Hub name.
        attn_implementation (`str`, *optional*): attention kernel.
        end_token (`int`, *optional*): end token of its tokenizer. The configurations of the first CLIPs name another
            one, and transformers reads such models at the highest token: where that is `end_token`, it is put right.

    Raises:
        HfChainError: when it cannot be loaded, is another architecture, or its weights are not those
            of its configuration or not finite.
    """
    config = load_clip_config(name_or_path)
    text = config.text_config
    if text.eos_token_id == OLD_END_TOKEN and end_token == text.vocab_size - 1:
        text.eos_token_id = end_token
    if end_token is not None and text.eos_token_id != end_token:
        raise HfChainError(
            f"{name_or_path} reads its text tower at token {text.eos_token_id}, and the tokenizer ends captions with "
            f"{end_token}: give the predecessor's own tokenizer"
        )
    try:
        model, found = read_model(
            CLIPModel,
            name_or_path,
            config=config,
            dtype=torch.float32,
            attn_implementation=attn_implementation,
            use_safetensors=True,
        )
    except Exception as error:
        raise _not_loaded(name_or_path, error) from error
    check_loaded(model, found, name_or_path)
    return model


def load_clip_with_processor(name_or_path: str) -> tuple[CLIPModel, CLIPProcessor]:
    """Like `load_clip`, with the processor that stands beside the model."""
    model = load_clip(name_or_path)
    try:
        return model, AutoProcessor.from_pretrained(name_or_path)
    except Exception as error:
        raise _not_loaded(f"The processor of {name_or_path}", error) from error


def _not_loaded(name: str, error: Exception) -> HfChainError:
    return HfChainError(
        f"{name} cannot be loaded ({reason(error)}): give the folder or the Hub name of a CLIP model in safetensors, "
        "and check the network"
    )
