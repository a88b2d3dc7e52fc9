"""What pydantic finds wrong with a recipe, in one line and in the words of the recipe."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from hf_chain.settings import Settings

_WANTED = {
    "model_type": "write a mapping of `key: value` lines there",
    "model_attributes_type": "write a mapping of `key: value` lines there",
    "dict_type": "write a mapping of `key: value` lines there",
    "list_type": "write a list there, one `- ` a line",
    "string_type": "write a text there, in quotes if need be",
}
"""Remedies that are clearer than pydantic's own."""


def first_problem(error: ValidationError, schema: type[Settings], values: Any) -> str:
    """The first problem of `error`: its place, the value and the remedy.

    Args:
        error (`ValidationError`): what pydantic found.
        schema (`type`): the settings that were read.
        values (`dict`): what they were read from; members are named by their names in it.
    """
    problem = error.errors()[0]
    place = _place(problem["loc"], values)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    message = problem["msg"].removeprefix("Value error, ")
    match problem["type"]:
        case "extra_forbidden":
            name = str(problem["loc"][-1])
            text = f"{place} is unknown{suggestion(name, list(_schema_at(schema, problem['loc'][:-1]).model_fields))}"
        case "missing":
            inside = _schema_at(schema, problem["loc"][:-1])
            text = f"{place} is missing; add it: {inside.model_fields[str(problem['loc'][-1])].description}"
        case "value_error":
            # Validators name the field themselves, as it is called inside its section.
            section, _, field = place.rpartition(".")
            section = section if message.startswith(field) else place
            text = f"{section}.{message}" if section else message
        case kind:
            remedy = _WANTED.get(kind, f"{message[0].lower()}{message[1:]}")
            text = f"{place} is {problem['input']!r}; {remedy}"
    return text + more


def suggestion(name: str, known: Sequence[str]) -> str:
    """The name that was probably meant, or those there are."""
    if close := difflib.get_close_matches(name, known, n=1):
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(sorted(known)[:12])}" + (", …" if len(known) > 12 else "")


def _place(location: tuple[int | str, ...], values: Any) -> str:
    parts = []
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            values = None
        name = values.get("name") if isinstance(part, int) and isinstance(values, dict) else None
        parts.append(name if isinstance(name, str) else str(part))
    return ".".join(parts)


def _schema_at(schema: type[Settings], location: tuple[int | str, ...]) -> type[Settings]:
    for part in location:
        if isinstance(part, str):
            annotation: Any = schema.model_fields[part].annotation
            inner = getattr(annotation, "__args__", (annotation,))
            schema = next(item for item in inner if isinstance(item, type) and issubclass(item, Settings))
    return schema
