"""Loading of grafted models and of checkpoints for the command line: whole, from safetensors, or refused in a line."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig

from hf_chain.errors import HfChainError
from hf_chain.grafting.shards import open_checkpoint
from hf_chain.loaded_weights import check_loaded, read_model
from hf_chain.models.grafted_vlm import (
    GraftedVLMConfig,
    GraftedVLMForConditionalGeneration,
    GraftedVLMProcessor,
)
from hf_chain.models.grafted_vlm.language_models import named_errors


def load_grafted(name: str) -> tuple[GraftedVLMForConditionalGeneration, GraftedVLMProcessor]:
    """A grafted model with all its weights, on the GPUs where there are some, and its processor.

    Args:
        name (`str`): folder or Hub name.

    Raises:
        HfChainError: when it is no grafted model, or something of it is missing or cannot be read.
    """
    check_checkpoint(name)
    _check_grafted(name)
    with named_errors("grafted model", name):
        model, found = read_model(
            GraftedVLMForConditionalGeneration, name, dtype="auto", use_safetensors=True, **on_gpus()
        )
    check_loaded(model, found, name)
    return model.eval(), load_processor(name)


def load_processor(name: str) -> GraftedVLMProcessor:
    """The processor that stands beside a grafted model.

    Raises:
        HfChainError: when it is not there or cannot be read, or stands beside another model.
    """
    _check_grafted(name)
    with named_errors("processor of", name):
        return GraftedVLMProcessor.from_pretrained(name)


def _check_grafted(name: str) -> None:
    with named_errors("grafted model", name):
        config = AutoConfig.from_pretrained(name)
    if not isinstance(config, GraftedVLMConfig):
        raise HfChainError(f"{name} is a {config.model_type}, no grafted model: give what a stage of a graft saved")


def check_checkpoint(name: str, revision: str | None = None) -> None:
    """Refuses a model without weights in safetensors, and shards that are missing, cut short or encrypted.

    Args:
        name (`str`): folder or Hub name.
        revision (`str`, *optional*): branch, tag or commit on the Hub.

    Raises:
        HfChainError: naming the file.
    """
    checkpoint = open_checkpoint(name, revision)
    checkpoint.tensors(checkpoint.shards())


def on_gpus() -> dict[str, Any]:
    """Arguments of `from_pretrained` that spread a model over the GPUs; none where there is no GPU."""
    return {"device_map": "auto"} if torch.cuda.is_available() else {}
