"""Memory of the list of usable rows, by rows.

python benchmarks/scale/usable_rows.py
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

from results import add_row

from hf_chain.cli import exit_cleanly
from hf_chain.data.quality import BadRow, QualityReport

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)


def main() -> None:
    """Measure what stays in memory for each size."""
    bad = [BadRow(7, None, "it cannot be read", usable=False)]
    ways: dict[str, Callable[[int], Any]] = {
        "nothing is bad": lambda size: QualityReport(size).good_indices,
        "one row is bad": lambda size: QualityReport(size, bad).good_indices,
        "a list, as before": lambda size: list(range(size)),
    }
    curves = {name: {size: _megabytes(way, size) for size in SIZES} for name, way in ways.items()}
    add_row(
        21,
        "list of usable rows of 10 M, of which nothing is bad, in MB",
        "MB",
        "rows",
        curves,
        curves["nothing is bad"][SIZES[-1]],
        "0 MB",
        "python benchmarks/scale/usable_rows.py",
        before="381 MB",
    )


def _megabytes(way: Callable[[int], Any], size: int) -> float:
    tracemalloc.start()
    kept = way(size)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) >= size - 1
    return held / 1e6


if __name__ == "__main__":
    exit_cleanly(main)
