"""Checks of the values of `ChainConfig` that start no torch, so that plans are quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hf_chain.arguments.field_checks import check_common_values
from hf_chain.distillation.schedule import SCHEDULES
from hf_chain.errors import HfChainError
from hf_chain.tasks import TASKS, check_task_values, used_fields


@dataclass
class UsualFields:
    """The fields of `ChainConfig` that recipes usually set, with its types, of which choices as texts, and defaults.

    What these checks take, `ChainConfig` takes. What they refuse is for `ChainConfig` to judge.
    """

    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 5e-5
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_steps: float = 0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool | None = None
    logging_strategy: Literal["no", "steps", "epoch"] = "steps"
    logging_steps: float = 500
    logging_first_step: bool = False
    save_strategy: Literal["no", "steps", "epoch"] = "steps"
    save_steps: float = 500
    save_total_limit: int | None = None
    dataloader_num_workers: int = 0
    dataloader_pin_memory: bool = True
    dataloader_persistent_workers: bool = False
    dataloader_prefetch_factor: int | None = None
    task: str = "contrastive"
    feature_loss_weight: float | None = None
    feature_loss_schedule: str = "constant"
    feature_loss_until: float = 1.0
    identical_captions_positive: bool = True
    micro_batch_size: int | None = None
    image_token_keep: float = 1.0
    unmasked_tail: float = 0.1
    trunk_decay: float | None = None
    trunk_merge: int = 0
    new_weights_warmup: float = 0.0
    bf16: bool | str = False


def check_values_of(config: Any, values: dict[str, Any]) -> None:
    """Checks types and ranges of `ChainConfig` fields without making one, which would start an engine.

    Args:
        config (`type`): `ChainConfig`, or `UsualFields`.
        values (`dict`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    task = values.get("task", "contrastive")
    check_common_values(config, values, ("feature_loss_weight",), used_fields(task))
    if task not in TASKS:
        raise HfChainError(f"task={task!r} is unknown: use one of {', '.join(TASKS)}")
    if (schedule := values.get("feature_loss_schedule", "constant")) not in SCHEDULES:
        raise HfChainError(f"feature_loss_schedule={schedule!r} is unknown: use one of {', '.join(SCHEDULES)}")
    if not 0 < (share := values.get("feature_loss_until", 1)) <= 1:
        raise HfChainError(f"feature_loss_until={share} must be above 0 and at most 1")
    _check_trunk(values)
    check_task_values(task, values)
    batch = values.get("per_device_train_batch_size", config.per_device_train_batch_size)
    micro = values.get("micro_batch_size")
    if micro is not None and (micro < 1 or batch % micro):
        raise HfChainError(f"micro_batch_size={micro} must divide per_device_train_batch_size={batch}")


def _check_trunk(values: dict[str, Any]) -> None:
    decay, merge = values.get("trunk_decay"), values.get("trunk_merge", 0)
    if decay is not None and not 0 < decay < 1:
        raise HfChainError(f"trunk_decay={decay} must be above 0 and below 1: 0.1 to 0.15 are usual")
    if merge and (decay is None or merge < 2):
        raise HfChainError(f"trunk_merge={merge} merges states over the share trunk_decay: give that, and 2 or more")
    if not 0 <= (share := values.get("new_weights_warmup", 0)) < 1:
        raise HfChainError(f"new_weights_warmup={share} must be at least 0 and below 1")
