"""The formulas of `docs/method.md`."""

from __future__ import annotations

import re

from support.recipes import REPOSITORY

PAGE = (REPOSITORY / "docs" / "method.md").read_text(encoding="utf-8")


def quotes(formula: str) -> None:
    """Holds that the page gives this formula, whose translation stands below it."""
    assert "".join(formula.split()) in "".join(PAGE.split()), f"docs/method.md has another formula than {formula}"


def formulas(start: str, end: str) -> int:
    """Number of those that stand on lines of their own between two of its lines."""
    marks = re.findall(r"^\$\$$", PAGE[PAGE.index(start) : PAGE.index(end)], re.MULTILINE)
    return len(marks) // 2
