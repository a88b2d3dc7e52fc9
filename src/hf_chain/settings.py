"""Base class of everything that is read from a recipe."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict


class Settings(BaseModel):
    """Immutable settings in which an unknown key is an error, so that a misspelt option never passes in silence.

    Numbers are finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _fits_a_folder(name: str) -> str:
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
    return os.path.expanduser(value) if isinstance(value, str) else value
