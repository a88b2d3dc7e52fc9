"""Reading of a recipe: a YAML file, values that replace some of it, and a schema that checks it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from hf_chain.errors import HfChainError
from hf_chain.settings import Settings
from hf_chain.stages.problems import first_problem
from hf_chain.stages.yaml_reader import read_yaml

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
    if not separator or not path:
        raise HfChainError(f"Override {override!r} has no '=': write section.field=value")
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
