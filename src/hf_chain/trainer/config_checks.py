"""Checks of values that all trainers' configurations share, without making one, which would start an engine."""

from __future__ import annotations

import math
from dataclasses import fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from hf_chain.errors import HfChainError
from hf_chain.trainer.precision import check_bfloat16

NOT_NEGATIVE = ("learning_rate", "weight_decay", "warmup_steps", "max_grad_norm")
ABOVE_ZERO = ("per_device_train_batch_size", "gradient_accumulation_steps", "logging_steps", "save_steps")


@cache
def fields_of(config: Any) -> dict[str, Any]:
    """Name and type of every field that can be given to a configuration class."""
    hints = get_type_hints(config)
    return {field.name: hints[field.name] for field in fields(config) if field.init}


def check_common_values(config: Any, values: dict[str, Any], not_negative: tuple[str, ...] = ()) -> None:
    """Checks types, and the ranges of the fields that every trainer has.

    Args:
        config (`type[TrainingArguments]`): the class of the configuration.
        values (`dict`): known field names to values; fields that are not there are not checked.
        not_negative (`tuple[str, ...]`): fields of `config` that must not be negative either.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    for name, value in values.items():
        _check_type(name, fields_of(config)[name], value)
    for name in (*NOT_NEGATIVE, *not_negative):
        if (number := values.get(name)) is not None and not 0 <= number < math.inf:
            raise HfChainError(f"{name} is {number}; it must be a number that is not negative")
    for name in ABOVE_ZERO:
        if (number := values.get(name)) is not None and not 0 < number < math.inf:
            raise HfChainError(f"{name} is {number}; it must be above 0")
    check_bfloat16(values.get("bf16", False))
    engine = values.get("deepspeed")
    if isinstance(engine, str) and not Path(engine).is_file():
        raise HfChainError(f"deepspeed is {engine!r}, which is no file; give the path of a DeepSpeed configuration")


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
