"""The rows of docs/benchmarks/scale.{md,json}: what costs have to do with sizes, one script each.

A script measures, prints its ratio with `add_row`, and leaves the rows of the others as they are. Where two branches
added rows, keep both in the JSON file and render the page again:

    python benchmarks/scale/results.py
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
FOLDER = BENCHMARKS.parent / "docs/benchmarks"
HEAD = """# Costs at scale

Each row has its script in `benchmarks/scale/`, which measures it again, prints the ratio and renews the row. Curves
are linear or flat where nothing grows for nothing. Sizes are made by generators.
"""


def add_row(
    number: int,
    what: str,
    unit: str,
    axis: str,
    curves: Mapping[str, Mapping[int, float]],
    ratio: float,
    aim: str,
    command: str,
    before: str = "",
    note: str = "",
    seed: int = 0,
    folder: Path = FOLDER,
) -> None:
    """Print a row, keep it in `scale.json` in place of an earlier one of the same number, and render `scale.md`.

    Args:
        number (`int`): Number of the row in the list of costs; rows are in its order.
        what (`str`): What was measured, without its unit.
        unit (`str`): Unit of the curves, such as `CPU ms an image`.
        axis (`str`): What the sizes count, such as `processes`.
        curves (`Mapping[str, Mapping[int, float]]`): Name of a way (ours, a control) to size to figure.
        ratio (`float`): The figure that the aim is about, in the aim's unit.
        aim (`str`): What it should be, such as `≤ 1.1 ×`.
        command (`str`): The line that measures the row, from the root of the checkout.
        before (`str`, *optional*): The figure before the change, as it was measured then.
        note (`str`, *optional*): What the figures do not say themselves, below their table.
        seed (`int`, *optional*, defaults to 0): Seed of the data.
        folder (`Path`, *optional*): Where the two files are.
    """
    from hf_chain.files import write_json
    from hf_chain.runs.environment import describe_environment

    target = folder / "scale.json"
    rows = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
    rows[str(number)] = {
        "what": what,
        "unit": unit,
        "axis": axis,
        "curves": {name: {str(size): curve[size] for size in sorted(curve)} for name, curve in curves.items()},
        "ratio": ratio,
        "aim": aim,
        "before": before,
        "note": note,
        "command": command,
        "seed": seed,
        "environment": describe_environment(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(target, dict(sorted(rows.items(), key=lambda item: int(item[0]))))
    render(folder)
    print(f"{number}. {what}: {_figure(ratio)} (aim {aim})")


def render(folder: Path = FOLDER) -> None:
    """Write `scale.md` from `scale.json`."""
    from hf_chain.files import write_text

    rows = json.loads((folder / "scale.json").read_text(encoding="utf-8"))
    lines = [HEAD, "| | before | measured | aim |", "|---|---|---:|---:|"]
    for number, row in rows.items():
        lines.append(f"| {number}. {row['what']} | {row['before']} | {_figure(row['ratio'])} | {row['aim']} |")
    for number, row in rows.items():
        lines += ["", *_section(number, row)]
    write_text(folder / "scale.md", "\n".join([*lines, "", *_machines(rows), ""]))


def _section(number: str, row: dict[str, Any]) -> list[str]:
    curves = row["curves"]
    sizes = sorted({int(size) for curve in curves.values() for size in curve})
    cells = {
        size: [_figure(curve[str(size)]) if str(size) in curve else "" for curve in curves.values()] for size in sizes
    }
    return [
        f"## {number}. {row['what']}",
        "",
        f"In {row['unit']}; seed {row['seed']}. Made by `{row['command']}`.",
        "",
        f"| {row['axis']} | {' | '.join(curves)} |",
        "|---:" * (1 + len(curves)) + "|",
        *(f"| {size:,} | {' | '.join(cells[size])} |" for size in sizes),
        *(["", *textwrap.wrap(row["note"], 120)] if row.get("note") else []),
    ]


def _machines(rows: dict[str, Any]) -> list[str]:
    """A line for each machine and set of versions, with the rows that were measured there."""
    sys.path.insert(0, str(BENCHMARKS))
    from families import machine_line

    numbers: dict[str, list[str]] = {}
    for number, row in rows.items():
        numbers.setdefault(machine_line(row["environment"]), []).append(number)
    if len(numbers) == 1:
        return list(numbers)
    return [line for text, which in numbers.items() for line in (f"Rows {', '.join(which)}: {text}", "")][:-1]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


if __name__ == "__main__":
    render()
