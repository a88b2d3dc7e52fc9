"""What fields of training arguments may be: values, types, and which do something only beside others."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from hf_chain.arguments.precision import check_bfloat16
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from transformers import TrainingArguments

UNUSED = {
    "label_smoothing_factor": "the losses here know no smoothing",
    "use_liger_kernel": "it has no kernels for these models",
    "liger_kernel_config": "it has no kernels for these models",
    "use_cache": "nothing is generated in training",
    "average_tokens_across_devices": "the loss is a mean over the global batch already",
    "auto_find_batch_size": "another batch is another training: lower per_device_train_batch_size",
    "logging_nan_inf_filter": "a loss that is not finite has to be seen",
    "parallelism_config": "nothing here splits a model or a sequence over devices",
    "fsdp": "the Trainer would train without it: use plain processes or DeepSpeed",
    "fsdp_config": "the Trainer would train without it: use plain processes or DeepSpeed",
}
"""Fields that no trainer here can follow, and why."""

CHECKED_UNUSED = (
    "label_smoothing_factor",
    "use_liger_kernel",
    "use_cache",
    "auto_find_batch_size",
    "logging_nan_inf_filter",
    "parallelism_config",
    "remove_unused_columns",
    "fsdp",
)
"""Those that are looked at in every configuration that is made, as the Trainer changes none of them."""

CHOICES = {
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    "log_level": ("debug", "info", "warning", "error", "critical", "passive"),
    "log_level_replica": ("debug", "info", "warning", "error", "critical", "passive"),
    "include_num_input_tokens_seen": ("all", "non_padding", "no", True, False),
    "dataloader_multiprocessing_context": (None, "fork", "spawn", "forkserver"),
    "save_strategy": ("no", "steps", "epoch"),
}
"""Texts that a field may be, where its type does not say so; `batch_rebalance` and `best` have nothing to go by."""

Values = Callable[[str], Any]
_STEADY = ("constant", "constant_with_warmup")
_TRACKIO = ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "hub_private_repo")


def _has_workers(value: Values) -> bool:
    return bool(value("dataloader_num_workers"))


def _checkpoints_activations(value: Values) -> bool:
    return bool(value("gradient_checkpointing") or value("activation_checkpointing"))


def _reports_to_trackio(value: Values) -> bool:
    return any(name in (value("report_to") or ()) for name in ("trackio", "all"))


NEEDED: dict[str, tuple[Callable[[Values], bool], str]] = {
    "save_steps": (lambda value: value("save_strategy") == "steps", "save_strategy: steps"),
    "logging_steps": (lambda value: value("logging_strategy") == "steps", "logging_strategy: steps"),
    "warmup_steps": (lambda value: value("lr_scheduler_type") != "constant", "another lr_scheduler_type"),
    "lr_scheduler_kwargs": (lambda value: value("lr_scheduler_type") not in _STEADY, "another lr_scheduler_type"),
    "optim_target_modules": (
        lambda value: any(kind in str(value("optim")) for kind in ("galore", "apollo")),
        "an optim that projects gradients, such as galore_adamw",
    ),
    "gradient_checkpointing_kwargs": (_checkpoints_activations, "gradient_checkpointing: true"),
    "activation_checkpointing_kwargs": (_checkpoints_activations, "activation_checkpointing: true"),
    "unmasked_tail": (lambda value: value("image_token_keep") < 1, "image_token_keep below 1"),
    "length_column_name": (lambda value: False, "a column of lengths, which no data set has here"),
    **dict.fromkeys(
        (
            "dataloader_prefetch_factor",
            "dataloader_persistent_workers",
            "dataloader_multiprocessing_context",
            "dataloader_in_order",
        ),
        (_has_workers, "dataloader_num_workers above 0"),
    ),
    **dict.fromkeys(_TRACKIO, (_reports_to_trackio, "report_to: trackio")),
}
"""Fields that do something only beside others: what the others must be, and how to say so."""


def defaults_of(config: Any) -> dict[str, Any]:
    """Default of every field of a configuration class that has one."""
    found = {}
    for field in fields(config):
        if field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return found


def check_used(config: Any, values: Mapping[str, Any], used: Collection[str] = ()) -> None:
    """Refuses fields that nothing here follows, and texts that they cannot be.

    Args:
        config (`type[TrainingArguments]`): the class of the configuration.
        values (`Mapping`): known field names to values.
        used (`Collection[str]`): fields of `UNUSED` that are followed all the same.

    Raises:
        HfChainError: naming the field and why.
    """
    defaults = defaults_of(config)
    for name in (UNUSED.keys() & values.keys()) - set(used):
        if values[name] not in (None, "", [], {}, defaults.get(name)):
            raise HfChainError(f"{name} is {values[name]!r} and would do nothing: {UNUSED[name]}; leave it out")
    for name in CHOICES.keys() & values.keys():
        choices, value = CHOICES[name], values[name]
        if getattr(value, "value", value) not in choices:
            known = ", ".join(str(choice) for choice in choices if choice is not None)
            raise HfChainError(f"{name} is {value!r}; use one of {known}")


def check_needed(config: Any, own: Iterable[str], values: Mapping[str, Any]) -> None:
    """Refuses fields that do something only beside others, where the others are not so.

    Args:
        config (`type[TrainingArguments]`): the class of the configuration.
        own (`Iterable[str]`): the fields that a section sets.
        values (`Mapping`): all fields that hold there; those that are not there have their default.

    Raises:
        HfChainError: naming the field and what it needs.
    """
    defaults = defaults_of(config)

    def value(name: str) -> Any:
        found = values.get(name, defaults.get(name))
        return getattr(found, "value", found)

    for name in own:
        given = value(name)
        if name in NEEDED and given not in (None, 0, False, defaults.get(name)) and not NEEDED[name][0](value):
            need = NEEDED[name][1]
            raise HfChainError(f"{name} is {given!r} and would do nothing: it needs {need}; set that or leave it out")


NOT_NEGATIVE = (
    "learning_rate",
    "weight_decay",
    "warmup_steps",
    "max_grad_norm",
    "neftune_noise_alpha",
    "dataloader_num_workers",
    "eval_delay",
)
ABOVE_ZERO = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "logging_steps",
    "save_steps",
    "eval_steps",
    "save_total_limit",
    "adam_epsilon",
    "ddp_timeout",
    "ddp_bucket_cap_mb",
    "torch_empty_cache_steps",
    "dataloader_prefetch_factor",
    "eval_accumulation_steps",
)
BELOW_ONE = ("adam_beta1", "adam_beta2")
WHOLE_FROM_ONE = ("warmup_steps", "logging_steps", "save_steps", "eval_steps")
"""Below 1 they are shares of all steps, from there on steps."""
LARGEST = 2**31 - 1
"""What fits everywhere that a number of steps, rows or seconds goes to."""
SEEDS = ("seed", "data_seed")
LARGEST_SEED = 2**32 - 1
"""What numpy takes."""
NUMBERS = (*NOT_NEGATIVE, *ABOVE_ZERO, *BELOW_ONE, *SEEDS)
"""Fields with a range, which the Trainer looks at late or never."""


@cache
def fields_of(config: Any) -> dict[str, Any]:
    """Name and type of every field that can be given to a configuration class."""
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in fields(config) if field.init}


def check_common_values(
    config: Any, values: dict[str, Any], not_negative: tuple[str, ...] = (), used: Collection[str] = ()
) -> None:
    """Checks types, and the ranges of the fields that every trainer has.

    Args:
        config (`type[TrainingArguments]`): the class of the configuration.
        values (`dict`): known field names to values; fields that are not there are not checked.
        not_negative (`tuple[str, ...]`): fields of `config` that must not be negative either.
        used (`Collection[str]`): fields of `UNUSED` that are followed all the same.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    # Before their types, as some of them have several.
    if values.get("remove_unused_columns"):
        raise HfChainError("remove_unused_columns is true, and the collator reads the data's columns: leave it out")
    check_used(config, values, used)
    for name, value in values.items():
        _check_type(name, fields_of(config)[name], value)
    for name in (*NOT_NEGATIVE, *not_negative):
        if (number := values.get(name)) is not None and not 0 <= number < math.inf:
            raise HfChainError(f"{name} is {number}; it must be a number that is not negative")
    if (number := values.get("adam_epsilon")) is not None and number > 1:
        raise HfChainError(f"adam_epsilon is {number}, beside which gradients vanish; it must be at most 1")
    for name in ABOVE_ZERO:
        if (number := values.get(name)) is not None and not 0 < number < math.inf:
            raise HfChainError(f"{name} is {number}; it must be above 0")
        if number is not None and number > LARGEST:
            raise HfChainError(f"{name} is {number}; it must be at most {LARGEST}")
    for name in BELOW_ONE:
        if (number := values.get(name)) is not None and not 0 <= number < 1:
            raise HfChainError(f"{name} is {number}; it must be at least 0 and below 1")
    for name in WHOLE_FROM_ONE:
        if (number := values.get(name)) is not None and number > 1 and number != int(number):
            raise HfChainError(f"{name} is {number}; give a whole number of steps, or a share of them below 1")
    for name in SEEDS:
        if (number := values.get(name)) is not None and not 0 <= number <= LARGEST_SEED:
            raise HfChainError(f"{name} is {number}; it must be from 0 to {LARGEST_SEED}")
    check_bfloat16(values.get("bf16", False))
    engine = values.get("deepspeed")
    if isinstance(engine, str) and not engine.startswith("{") and not Path(engine).expanduser().is_file():
        raise HfChainError(f"deepspeed is {engine!r}, which is no file; give the path of a DeepSpeed configuration")


def check_accelerator(config: TrainingArguments) -> None:
    """Refuses an `accelerator_config` under which a batch is another than its size says.

    Raises:
        HfChainError: naming what is set.
    """
    if config.accelerator_config.split_batches:
        raise HfChainError(
            "accelerator_config has split_batches, which makes per_device_train_batch_size the batch of all devices:"
            " leave it out"
        )


def _check_type(name: str, hint: Any, value: Any) -> None:
    try:
        TypeAdapter(hint, config={"arbitrary_types_allowed": True}).validate_python(value, strict=True)
    except ValidationError as error:
        raise HfChainError(f"{name} is {value!r}; {error.errors()[0]['msg'].lower()}") from error
    except PydanticUserError:
        return
    # A choice may be given as text, which the type of the field allows without looking at it.
    for choices in (kind for kind in get_args(hint) if isinstance(kind, type) and issubclass(kind, Enum)):
        if isinstance(value, str) and value not in [choice.value for choice in choices]:
            known = ", ".join(sorted(str(choice.value) for choice in choices))
            raise HfChainError(f"{name} is {value!r}; use one of {known}")
