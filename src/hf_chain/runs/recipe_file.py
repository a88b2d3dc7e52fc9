"""Reading of a recipe: YAML, values that replace some of it, a schema, and what is wrong in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from hf_chain.errors import HfChainError, reason
from hf_chain.settings import Settings

Schema = TypeVar("Schema", bound=Settings)


def read_values(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a recipe's file, with some of them replaced.

    Args:
        path (`str` or `Path`): the YAML file.
        overrides (`Sequence[str]`): as for `parse_values`.

    Raises:
        HfChainError: when the file is missing or is no YAML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise HfChainError(f"Recipe {path} cannot be read ({reason}): give the path of a YAML file") from error
    return parse_values(text, overrides, origin=str(path))


def parse_values(text: str, overrides: Sequence[str] = (), origin: str = "recipe") -> dict[str, Any]:
    """The values of a recipe's text, with some of them replaced.

    Args:
        text (`str`): YAML.
        overrides (`Sequence[str]`): `section.field=value`; an entry of a list is named by its name
            (`members.small.epochs=4`) and the value is read as YAML.
        origin (`str`): names the text in errors.

    Raises:
        HfChainError: when the text is no YAML mapping, or an override names nothing.
    """
    values = read_yaml(text, origin)
    if not isinstance(values, dict):
        what = "is empty" if values is None else f"holds {type(values).__name__}, not a mapping"
        raise HfChainError(f"{origin} {what}: start with `name:`, `data:`, `model:`, `members:`")
    for override in overrides:
        _override(values, override)
    return values


def validated(schema: type[Schema], values: dict[str, Any], origin: str) -> Schema:
    """The recipe that `values` describe.

    Raises:
        HfChainError: naming the first thing that is not allowed.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise HfChainError(f"{origin}: {first_problem(error, schema, values)}") from error


def _override(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not all(part.strip() for part in path.split(".")):
        wrong = "has a name that is empty" if separator else "has no '='"
        raise HfChainError(f"Override {override!r} {wrong}: write section.field=value")
    *parents, last = path.split(".")
    if "parts" in parents:
        # Names of parts have dots of their own.
        place = parents.index("parts") + 1
        parents, last = parents[:place], ".".join([*parents[place:], last])
    target: Any = values
    for key in parents:
        if isinstance(target, list):
            target = next((item for item in target if isinstance(item, dict) and item.get("name") == key), None)
        elif isinstance(target, dict):
            # A section that is named but empty is null.
            target[key] = {} if target.get(key) is None else target[key]
            target = target[key]
        if not isinstance(target, (dict, list)):
            raise HfChainError(f"Override {override!r}: there is no {key!r} in the recipe")
    if not isinstance(target, dict):
        raise HfChainError(f"Override {override!r}: name a member and its field, such as members.small.epochs=4")
    target[last] = read_yaml(text, f"Override {override!r}")


class _Loader(yaml.SafeLoader):
    """`SafeLoader` with the numbers of YAML 1.2, in which a second value for a key is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: list[Any] = []
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands there twice", problem_mark=key.start_mark)
            seen.append(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def read_yaml(text: str, origin: str) -> Any:
    """Reads one YAML document of plain values.

    Args:
        text (`str`): the document.
        origin (`str`): where it comes from, for errors.

    Raises:
        HfChainError: when it is no YAML, naming the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise HfChainError(f"{origin} is nested too deeply to be read: write lists and mappings flatter") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or reason(error)
        raise HfChainError(f"{origin} is no valid YAML{where}, {problem}: correct it there") from error


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
