"""Loading of CLIP models that this run did not make: predecessors, and models to grow or evaluate."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, AutoProcessor, CLIPConfig, CLIPModel, CLIPProcessor

from hf_chain.errors import HfChainError

OLD_END_TOKEN = 2


def load_clip_config(name_or_path: str) -> CLIPConfig:
    """Configuration of a published CLIP model.

    Args:
        name_or_path (`str`): folder or Hub name.

    Raises:
        HfChainError: when there is none, or it is that of another architecture, whose weights would stay random.
    """
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
    """A published CLIP model with all its weights, which are read from safetensors only.

    Args:
        name_or_path (`str`): folder or Hub name.
        attn_implementation (`str`, *optional*): attention kernel.
        end_token (`int`, *optional*): end token of its tokenizer. The configurations of the first CLIPs name another
            one, and transformers reads such models at the highest token: where that is `end_token`, it is put right.

    Raises:
        HfChainError: when it cannot be loaded, is another architecture, or lacks weights.
    """
    config = load_clip_config(name_or_path)
    text = config.text_config
    if text.eos_token_id == OLD_END_TOKEN and end_token == text.vocab_size - 1:
        text.eos_token_id = end_token
    try:
        model, found = CLIPModel.from_pretrained(
            name_or_path,
            config=config,
            attn_implementation=attn_implementation,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise _not_loaded(name_or_path, error) from error
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise HfChainError(
            f"{name_or_path} lacks weights: {missing[0]} and {len(missing) - 1} more; give a whole model"
        )
    return model


def load_clip_with_processor(name_or_path: str) -> tuple[CLIPModel, CLIPProcessor]:
    """Like `load_clip`, with the processor that stands beside the model."""
    model = load_clip(name_or_path)
    try:
        return model, AutoProcessor.from_pretrained(name_or_path)
    except Exception as error:
        raise _not_loaded(f"The processor of {name_or_path}", error) from error


def _not_loaded(name: str, error: Exception) -> HfChainError:
    reason = " ".join(str(error).split())[:200].rstrip(". ")
    return HfChainError(
        f"{name} cannot be loaded ({reason}): give the folder or the Hub name of a CLIP model in safetensors, "
        "and check the network"
    )
