"""Base class of everything that is read from a recipe."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, field_validator

from hf_chain.files import check_path

LARGEST = 2**53
"""Whole numbers up to here are exact in floating point too."""
LARGEST_SEED = 2**31 - 1
"""Members count on from a recipe's seed, and numpy takes 32 bits."""
MOST_EPOCHS = 100_000
LONGEST_NAME = 64
"""Folders have names of at most 255 bytes, and repositories of 96 characters, prefix included."""


class Settings(BaseModel):
    """Immutable settings in which an unknown key is an error, so that a misspelt option never passes in silence.

    Numbers are finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
        if not kinds & {int, float} or Any in kinds:
            return value
        for item in _plain_values(value):
            if isinstance(item, bool) and bool not in kinds:
                raise ValueError(f"{info.field_name} is {value!r}; true and false are no numbers, so give one")
            if isinstance(item, int) and abs(item) > LARGEST:
                raise ValueError(f"{info.field_name} is above {LARGEST}; give a smaller number")
        return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    inner = get_args(annotation)
    yield from (kind for part in inner for kind in _kinds(part)) if inner else (annotation,)


def _plain_values(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _plain_values(item)
    else:
        yield value


def _fits_a_folder(name: str) -> str:
    if len(name) > LONGEST_NAME:
        raise ValueError(f"name is {name[:20]!r}…, {len(name)} characters; use at most {LONGEST_NAME}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"name is {name!r}; use letters, digits, '.', '_' and '-', not first a sign")
    return name


FolderName = Annotated[str, AfterValidator(_fits_a_folder)]
"""Name of something that gets a folder of its own."""


def expanded(value: Any) -> Any:
    """Paths, alone or in lists and mappings, with `~` as the user's folder; for `field_validator`."""
    if isinstance(value, list):
        return [expanded(one) for one in value]
    if isinstance(value, dict):
        return {name: expanded(one) for name, one in value.items()}
    if not isinstance(value, str):
        return value
    check_path(value)
    return os.path.expanduser(value)
