"""Values of a recipe, changed at some places."""

from __future__ import annotations

from typing import Any

GONE = object()
"""As a value: take the key away."""


def changed(values: Any, changes: dict[str, Any]) -> Any:
    """`values` with others at dotted places, in which numbers count the entries of lists."""
    for place, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in place.split(".")]
        section = values
        for key in parents:
            section = section[key] if isinstance(key, int) else section.setdefault(key, {})
        if value is GONE:
            del section[last]
        else:
            section[last] = value
    return values
