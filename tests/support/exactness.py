"""The table of exactness in docs/growth.md, from the rows that the tests prove.

python tests/support/exactness.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.families import ROWS, Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "growth.md"
BEGIN, END = "<!-- exactness: begin -->", "<!-- exactness: end -->"
COLUMNS = {
    "width": ("width", "vision width"),
    "a multiple": ("twice the width", "twice the vision width"),
    "depth": ("depth", "text depth"),
    "heads": ("heads", "width"),
    "key–value heads": ("key-value heads",),
    "MLP": ("MLP",),
    "experts": ("experts",),
    "words": ("vocabulary",),
    "all at once": ("everything",),
}
"""Column -> what grows in the tests, the first that a row has."""


def table() -> str:
    """Families × what grows: exact, or the bound of the relative error that the tests hold."""
    lines = [f"| model | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for name, row in ROWS.items():
        cells = [_cell(row, next((what for what in tried if what in row.grown), None)) for tried in COLUMNS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Row, what: str | None) -> str:
    if what is None:
        return "–"
    return f"< {row.errors[what]:.0e}" if what in row.errors else "exact"


def page_with_table() -> str:
    """The page with the table put in."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page_with_table(), encoding="utf-8")
