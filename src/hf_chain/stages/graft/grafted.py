"""Loading of grafted models and of checkpoints for the command line: whole, from safetensors, or refused in a line."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig

from hf_chain.errors import HfChainError
from hf_chain.grafting.shards import open_checkpoint
from hf_chain.models.grafted_vlm import (
    GraftedVLMConfig,
    GraftedVLMForConditionalGeneration,
    GraftedVLMProcessor,
)
from hf_chain.models.grafted_vlm.language_models import cannot_load


def load_grafted(name: str) -> tuple[GraftedVLMForConditionalGeneration, GraftedVLMProcessor]:
    """A grafted model with all its weights, on the GPUs where there are some, and its processor.

    Args:
        name (`str`): folder or Hub name.

    Raises:
        HfChainError: when it is no grafted model, or something of it is missing or cannot be read.
    """
    check_checkpoint(name)
    try:
        config = AutoConfig.from_pretrained(name)
        if not isinstance(config, GraftedVLMConfig):
            raise HfChainError(
                f"{name} is a {config.model_type}, no grafted model: give what a stage of a graft saved"
            )
        model, found = GraftedVLMForConditionalGeneration.from_pretrained(
            name, dtype="auto", use_safetensors=True, output_loading_info=True, **on_gpus()
        )
    except HfChainError:
        raise
    except Exception as error:  # Configuration classes, safetensors and the Hub raise errors of their own.
        raise cannot_load("grafted model", name, error) from error
    if missing := sorted(found["missing_keys"]):
        raise HfChainError(f"{name} lacks {missing[0]} and {len(missing) - 1} more weights: give a whole model")
    return model.eval(), load_processor(name)


def load_processor(name: str) -> GraftedVLMProcessor:
    """The processor that stands beside a grafted model.

    Raises:
        HfChainError: when it is not there or cannot be read.
    """
    try:
        return GraftedVLMProcessor.from_pretrained(name)
    except Exception as error:
        raise cannot_load("processor of", name, error) from error


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
