"""One optimizer group for every part and kind of weight decay."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from hf_chain.errors import HfChainError
from hf_chain.trainer.parts import Part


def optimizer_groups(parts: Iterable[Part], decayed: Collection[str], weight_decay: float) -> list[dict[str, Any]]:
    """Groups the parts' parameters by learning rate and weight decay.

    Args:
        parts (`Iterable[Part]`): what is trained.
        decayed (`Collection[str]`): names of parameters with weight decay.
        weight_decay (`float`): their weight decay.

    Returns:
        `list[dict]`: groups for a torch optimizer, none empty, each with the name of its `part`.
    """
    groups = []
    for part in parts:
        for decays in (True, False):
            chosen = [value for name, value in part.parameters.items() if (name in decayed) == decays]
            if chosen:
                decay = weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": part.learning_rate, "weight_decay": decay, "part": part.name})
    return groups


def check_engine_config(config: dict[str, Any] | None) -> None:
    """Refuses a DeepSpeed configuration that would replace the learning rates of the parts.

    Args:
        config (`dict`, *optional*): the DeepSpeed configuration.

    Raises:
        HfChainError: when it brings an optimizer or a scheduler of its own.
    """
    for section in ("optimizer", "scheduler"):
        if section in (config or {}):
            raise HfChainError(
                f"the DeepSpeed configuration has a section {section}, which would give all parts one learning rate: "
                "remove it; the Trainer's own is used instead"
            )
