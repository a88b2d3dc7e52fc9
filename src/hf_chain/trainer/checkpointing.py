"""The names of activation checkpointing, which transformers changed."""

from __future__ import annotations

from transformers import TrainingArguments

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
