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
    """Refuses a DeepSpeed configuration that would replace the parts' learning rates, or cannot save the model.

    Args:
        config (`dict`, *optional*): the DeepSpeed configuration.

    Raises:
        HfChainError: when it brings an optimizer or a scheduler of its own, or leaves weights in pieces when it saves.
    """
    for section in ("optimizer", "scheduler"):
        if section in (config or {}):
            raise HfChainError(
                f"the DeepSpeed configuration has a section {section}, which would give all parts one learning rate: "
                "remove it; the Trainer's own is used instead"
            )
    sharding = (config or {}).get("zero_optimization") or {}
    if sharding.get("stage") == 3 and not sharding.get("stage3_gather_16bit_weights_on_model_save"):
        raise HfChainError(
            "the DeepSpeed configuration has ZeRO-3 without stage3_gather_16bit_weights_on_model_save in "
            "zero_optimization, so the trained model could not be saved: set it to true"
        )
