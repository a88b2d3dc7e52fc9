"""CPU time per used image of a stream of tar shards, on 1 to 8 processes.

    python benchmarks/scale/streams.py

Each process of a launch is tried alone, with the slices that accelerate would deal it. The control reads the whole
stream and drops foreign slices once they are decoded, as before.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

from accelerate.data_loader import IterableDatasetShard
from jpegs import write_tars
from results import add_row
from torch.utils.data import DataLoader

from hf_chain.cli import exit_cleanly
from hf_chain.data import (
    DataSettings,
    ImageTextCollator,
    ImageTextStream,
    build_processor,
    load_splits,
    train_tokenizer,
)
from hf_chain.data.streams import EndlessStream, LanedStream

FILES, ROWS, BATCH, ROUNDS = 16, 500, 256, 7
"""Shards, rows of each, images of a batch over all processes, and rounds in which all take turns."""
LANES, DROPPED = "lanes", "foreign slices decoded and dropped"


def main() -> None:
    """Measure both ways on each number of processes."""
    with tempfile.TemporaryDirectory() as folder:
        settings = DataSettings(
            source=write_tars(Path(folder), FILES, ROWS),
            image_column="jpg",
            caption_column="txt",
            streaming=True,
            validation_split=None,
        )
        splits = load_splits(settings)
        captions = ImageTextStream(splits["train"], settings).all_captions(200)
        collator = ImageTextCollator(build_processor(train_tokenizer(list(captions), 1_000, 77), 224))
        tried = {
            (name, processes): [_batches(settings, collator, processes, process, name) for process in processes_tried]
            for processes in (1, 2, 4, 8)
            for processes_tried in [sorted({0, processes - 1})]
            for name in (LANES, DROPPED)
        }
        rounds = [
            {key: mean(map(_milliseconds, loaders)) for key, loaders in tried.items()} for _ in range(ROUNDS + 1)
        ]
    curves: dict[str, dict[int, float]] = {LANES: {}, DROPPED: {}}
    for name, processes in tried:
        curves[name][processes] = median(seconds[name, processes] for seconds in rounds[1:])
    ratios = [median(taken[LANES, processes] / taken[LANES, 1] for taken in rounds[1:]) for processes in (2, 4, 8)]
    add_row(
        17,
        "CPU time per used image of a stream, most against one process",
        "CPU ms a used image, decoded, resized and tokenized",
        "processes",
        curves,
        max(ratios),
        "≤ 1.1 ×",
        "python benchmarks/scale/streams.py",
        before="1.9 → 4.3 → 17.9 ms",
    )


def _batches(settings: DataSettings, collator: Any, processes: int, process: int, name: str) -> Iterator[Any]:
    size = BATCH // processes
    stream = ImageTextStream(load_splits(settings)["train"], settings)
    rows: Any = EndlessStream(stream, least=BATCH)
    if name == LANES:
        rows = LanedStream(stream, BATCH, range(process * size, (process + 1) * size))
    shard = IterableDatasetShard(rows, size, num_processes=processes, process_index=process)
    return iter(DataLoader(shard, batch_size=size, collate_fn=collator))


def _milliseconds(batches: Iterator[Any]) -> float:
    """CPU time per image of some batches, or of one where it is large."""
    used, start = 0, time.process_time()
    while used < 128:
        used += len(next(batches)["pixel_values"])
    return (time.process_time() - start) / used * 1e3


if __name__ == "__main__":
    exit_cleanly(main)
