"""Types of fields that a command line gives as text: what HfArgumentParser is to make of it.

For an option it calls the type of its field, and knows no unions of others. So these types are called with the text;
to everybody else they stand for the values they make.
"""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from transformers.hf_argparser import string_to_bool

from hf_chain.arguments.field_checks import fields_of
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    SwitchOrAuto = bool | str
    PartRates = dict[str, float | None] | list[str]
    Options = dict[str, Any] | None
else:

    class _FromText:
        """The type of a field; `stands_for` says of which values."""

        stands_for: Any

        def __new__(cls, text: str) -> Any:
            try:
                return cls.read(text)
            except HfChainError as error:
                raise ArgumentTypeError(str(error)) from error

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return handler.generate_schema(cls.stands_for)

    class SwitchOrAuto(_FromText):
        """`auto`, or what is as good as true or false."""

        stands_for = bool | str

        @staticmethod
        def read(text: str) -> bool | str:
            return text if text == "auto" else string_to_bool(text)

    class PartRates(_FromText):
        """Parts and their learning rates as JSON, or the names of parts with commas between them."""

        stands_for = dict[str, float | None] | list[str]

        @staticmethod
        def read(text: str) -> dict[str, float | None] | list[str]:
            return part_rates(text)

    class Options(_FromText):
        """A JSON object."""

        stands_for = dict[str, Any] | None

        @staticmethod
        def read(text: str) -> dict[str, Any]:
            return read_object("lora", text)


def value_type(hint: Any) -> Any:
    """The values that a field of this type has."""
    return getattr(hint, "stands_for", hint)


def part_rates(given: Any) -> Any:
    """`parts` as text turned into what it says, and rates such as `1e-4`, which YAML reads as text, into numbers.

    Raises:
        HfChainError: when it begins as JSON does and is none.
    """
    if isinstance(given, str):
        text = given.strip()
        if text.startswith(("{", '["')):
            given = read_object("parts", text) if text.startswith("{") else _read("parts", text)
        else:
            given = [name.strip() for name in text.split(",") if name.strip()]
    if isinstance(given, Mapping):
        return {name: as_number(rate) for name, rate in given.items()}
    return given


def read_object(name: str, text: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        HfChainError: naming the field, when it is none.
    """
    found = _read(name, text)
    if not isinstance(found, dict):
        raise HfChainError(f'{name} is {text!r}, which is no JSON object: give one, such as {{"a": 1}}')
    return found


def as_number(value: Any) -> Any:
    """Text that says a number as that number; anything else as it is."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def take_numbers(config: Any) -> None:
    """Turns numbers that are given as text, as YAML reads `1e-4`, into numbers.

    Args:
        config (`TrainingArguments`): changed, before its own `__post_init__`.
    """
    kind: Any = type(config)
    for name, hint in fields_of(kind).items():
        value = getattr(config, name)
        if isinstance(value, str) and hint in (float, float | None, int, int | None):
            number = as_number(value)
            whole = hint in (int, int | None) and isinstance(number, float) and number.is_integer()
            setattr(config, name, int(number) if whole else number)


def _read(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise HfChainError(f"{name} is {text!r}, which is no JSON ({error})") from error
