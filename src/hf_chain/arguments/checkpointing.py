"""The names of activation checkpointing, which transformers changed."""

from __future__ import annotations

from torch import nn
from transformers import TrainingArguments

from hf_chain.errors import HfChainError

CHECKPOINTING = ("activation_checkpointing", "gradient_checkpointing")
CHECKPOINTING_OPTIONS = tuple(f"{name}_kwargs" for name in CHECKPOINTING)
"""The first name is that of transformers since 5.23, the second that of those before, which the others still take."""


def take_new_names(config: TrainingArguments) -> None:
    """Moves what is said of `gradient_checkpointing`, which all supported releases know and the newest warn of.

    Args:
        config (`TrainingArguments`): changed, before its own `__post_init__`.
    """
    for new, old in (CHECKPOINTING, CHECKPOINTING_OPTIONS):
        if hasattr(config, new) and hasattr(config, old) and getattr(config, new) is None:
            setattr(config, new, getattr(config, old))
            setattr(config, old, None)


def checkpoints_activations(model: nn.Module) -> bool:
    """Whether a model checkpoints activations already, as after `gradient_checkpointing_enable`."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def check_checkpointing(model: nn.Module) -> None:
    """Refuses a model that checkpoints in the reentrant way, which gives layers behind frozen ones no gradient.

    Raises:
        HfChainError: saying how to do it otherwise.
    """
    for module in model.modules():
        options = getattr(getattr(module, "_gradient_checkpointing_func", None), "keywords", {})
        if getattr(module, "gradient_checkpointing", False) and options.get("use_reentrant"):
            raise HfChainError(
                "the model checkpoints with use_reentrant, which gives layers behind frozen ones no gradient: call"
                ' gradient_checkpointing_enable({"use_reentrant": False})'
            )
