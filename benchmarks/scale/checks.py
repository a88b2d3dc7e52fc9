"""CPU time of the scan for bad rows, by rows, and what each further process of a launch adds.

python benchmarks/scale/checks.py
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, Value
from datasets import Image as ImageColumn
from jpegs import jpegs
from results import add_row

from hf_chain.cli import exit_cleanly
from hf_chain.data import DataSettings, check_quality
from hf_chain.data.quality import QualityReport

SIZES, PROCESSES = (1_000, 10_000, 100_000, 1_000_000), 8
"""Rows, and processes of a launch."""


def main() -> None:
    """Measure every setting at every size."""
    pairs = list(jpegs(100, size=(48, 48)))
    curves: dict[str, dict[int, float]] = {"all, main process": {}, "all, each other": {}, "sample": {}, "off": {}}
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            rows = _table(Path(folder) / f"{size}.parquet", pairs, size)
            report_file = Path(folder) / f"{size}.json"
            for check in ("all", "sample", "off"):
                settings = DataSettings(source="images", caption_column="text", check=check)
                name = "all, main process" if check == "all" else check
                # The cache is another one each time: nothing is remembered.
                datasets.config.HF_DATASETS_CACHE = tempfile.mkdtemp(dir=folder)
                curves[name][size] = _seconds(lambda: check_quality(rows, settings, report_file=report_file))  # noqa: B023
                if check == "all":
                    read = lambda: rows.select(QualityReport.read(report_file).good_indices)  # noqa: B023, E731
                    curves["all, each other"][size] = _seconds(read)
            print(size, {name: curve.get(size) for name, curve in curves.items()}, flush=True)
    alone, other = (curves[name][SIZES[-1]] for name in ("all, main process", "all, each other"))
    add_row(
        19,
        f"scan for bad rows, {PROCESSES} processes against one",
        "CPU s, workers included",
        "rows",
        curves,
        (alone + (PROCESSES - 1) * other) / alone,
        "≤ 1.1 ×",
        "python benchmarks/scale/checks.py",
        before=f"{PROCESSES} ×: every process scanned every image",
    )


def _table(path: Path, pairs: list[tuple[bytes, str]], size: int) -> Dataset:
    """Rows of which one in 200 cannot be read."""

    def rows() -> Any:
        for row in range(size):
            image, caption = pairs[row % len(pairs)]
            yield {"image": {"bytes": image if row % 200 else image[:100], "path": None}, "text": caption}

    features = Features({"image": ImageColumn(), "text": Value("string")})
    return Dataset.from_generator(rows, features=features, cache_dir=str(path.with_suffix("")))


def _seconds(work: Callable[[], Any]) -> float:
    before = os.times()
    work()
    after = os.times()
    return sum(after[:4]) - sum(before[:4])


if __name__ == "__main__":
    exit_cleanly(main)
