"""CPU time of appending to a ledger, by the events that it holds already.

    python benchmarks/scale/ledger.py

Row 25 of docs/benchmarks/scale.md.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from paired import cpu_seconds, ratio
from results import add_row

from hf_chain.runs.ledger import Ledger

EVENTS = (100, 1_000, 10_000, 100_000)
APPENDED = 200


class Reading(Ledger):
    """Reads all of it before each append, as ledgers did before."""

    def append(self, event: str, member: str | None = None, **fields: object) -> None:
        """Looks at the end of what was read, then appends."""
        assert not self.path.exists() or self.path.read_bytes().endswith(b"\n")
        super().append(event, member, **fields)


def main() -> None:
    """Measures each size and adds the row."""
    curves: dict[str, dict[int, float]] = {"last byte": {}, "whole ledger": {}}
    with tempfile.TemporaryDirectory() as folder:
        ledgers = {}
        for size in EVENTS:
            ledgers[size] = (Ledger(Path(folder, f"{size}")), Reading(Path(folder, f"{size}-read")))
            for ledger in ledgers[size]:
                ledger.append("saved", "tiny", weights_sha256="f" * 64)
                ledger.path.write_bytes(ledger.path.read_bytes() * size)
        ways = {
            f"{name} {size}": lambda ledger=ledger: append(ledger)
            for size, pair in ledgers.items()
            for name, ledger in zip(curves, pair, strict=True)
        }
        seconds = cpu_seconds(ways, rounds=5)
    for name, curve in curves.items():
        for size in EVENTS:
            curve[size] = 1e6 * statistics.median(seconds[f"{name} {size}"]) / APPENDED
    smallest, largest = f"last byte {EVENTS[0]}", f"last byte {EVENTS[-1]}"
    before = curves["whole ledger"][EVENTS[-1]] / curves["whole ledger"][EVENTS[0]]
    add_row(
        25,
        f"an append to a ledger of {EVENTS[-1]:,} events, against one of {EVENTS[0]}",
        "CPU µs an append",
        "events",
        curves,
        ratio(seconds, largest, smallest),
        "≤ 1.1 ×",
        "python benchmarks/scale/ledger.py",
        before=f"{before:.3g}",
    )


def append(ledger: Ledger) -> None:
    """Some events of usual length."""
    for _ in range(APPENDED):
        ledger.append("saved", "tiny", weights_sha256="f" * 64)


if __name__ == "__main__":
    main()
