"""The model that a suite is run on: with its vision tower, and its text tower where it has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from hf_chain.adapters import check_model_files
from hf_chain.errors import HfChainError, reason
from hf_chain.evaluation.image_features import has_vision_tower
from hf_chain.families import family_of
from hf_chain.loaded_weights import check_loaded, read_model


def load_vision_model(name: str | Path) -> tuple[PreTrainedModel, Any]:
    """A model with a vision tower in float32, and what prepares its inputs.

    Args:
        name (`str` or `Path`): Folder or Hub name.

    Returns:
        The model, of the class that its configuration names, on the GPU where there is one; and its processor, of a
        vision model its image processor.

    Raises:
        HfChainError: when it has no vision tower, or one of the two cannot be loaded.
    """
    config = check_vision_model(name)
    model_class = getattr(transformers, (config.architectures or [""])[0], transformers.AutoModel)
    try:
        model, found = read_model(model_class, str(name), dtype=torch.float32, use_safetensors=True)
    except Exception as error:
        raise _not_loaded(name, "a model in safetensors", error) from error
    check_loaded(model, found, str(name))
    dual = family_of(config).kind == "dual"
    kind = transformers.AutoProcessor if dual else transformers.AutoImageProcessor
    try:
        processor = kind.from_pretrained(name, **({} if dual else {"backend": "pil"}))
    except Exception as error:
        raise _not_loaded(name, "a model with its processor", error) from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), processor


def check_vision_model(name: str | Path) -> PreTrainedConfig:
    """The configuration of a model that has a vision tower.

    Args:
        name (`str` or `Path`): Folder or Hub name.

    Raises:
        HfChainError: when it has none, or its configuration cannot be loaded.
    """
    check_model_files(name)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(name)
    except Exception as error:  # The Hub, JSON and configuration classes raise errors of their own.
        raise _not_loaded(name, "a model in safetensors", error) from error
    if not has_vision_tower(config):
        raise HfChainError(
            f"{name} is a {config.model_type} model, which has no vision tower: give a CLIP, a ViT or another"
        )
    return config


def _not_loaded(name: str | Path, wanted: str, error: Exception) -> HfChainError:
    return HfChainError(
        f"{name} cannot be loaded ({reason(error)}): give the folder or Hub name of {wanted}, and check the network"
    )
