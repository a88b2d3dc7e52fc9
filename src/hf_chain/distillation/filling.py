"""Filling a cache of teacher features: in blocks of rows, shared by all processes, and gone on with after a kill.

A block is written, brought to disk and then noted in the log of its process, so that what is noted is there. Nothing
that grows with the data is in memory but what the page cache holds.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from hf_chain.files import sync

ROWS = "rows.npy"
BLOCK = 1_024
"""Rows that are computed and noted together."""
PAUSE = 0.2
"""Seconds between looks at what other processes have done."""
_DIGITS = 12


class AlreadyWholeError(Exception):
    """The first process has finished the cache, to which this one had nothing left to add."""


@dataclass(frozen=True)
class Filling:
    """What one process does of a cache.

    Args:
        teacher (`LiveTeacher`): whose features.
        dataset (`Dataset`): the training data.
        collator (`Callable`): makes the batches.
        cache (`Path`): the cache when it is whole. What it will hold, and what is noted of it, are beside it until
            then, and may be there from an earlier attempt.
        views (`int`): views of a row.
        batch_size (`int`): samples in a forward.
        workers (`int`): further processes that read, decode and tokenize.
        rank (`int`): of this process; the first one makes the files.
        processes (`int`): how many there are; all see `cache`.
    """

    teacher: Any
    dataset: Any
    collator: Callable[[list[Any]], dict[str, torch.Tensor]]
    cache: Path
    views: int
    batch_size: int
    workers: int
    rank: int
    processes: int

    def run(self) -> None:
        """Does this process's part; in the first one, waits for the parts of the others too.

        Raises:
            AlreadyWholeError: when the others have done all of it.
        """
        self._begin()
        for view in range(self.views):
            self._write_view(view)
        if self.rank == 0:
            for view in range(self.views):
                self._wait_for(f"view{view}")

    def _begin(self) -> None:
        for folder in (self.folder, self._notes):
            folder.mkdir(parents=True, exist_ok=True)
        if self.rank == 0 and not (self.folder / ROWS).exists():
            # What was noted is gone.
            for path in self._notes.iterdir():
                path.unlink()
        shape = (self.views, len(self.dataset), *self.teacher.stored_shape(self.dataset))
        self._make(ROWS, lambda path: allocate(path, shape))

    def finish(self) -> None:
        """Gives the cache its name, then forgets what was noted."""
        os.replace(self.folder, self.cache)
        sync(self.cache.parent)
        shutil.rmtree(self._notes)

    @property
    def folder(self) -> Path:
        """What becomes the cache."""
        return self.cache.with_name(f".{self.cache.name}.partial")

    @property
    def _notes(self) -> Path:
        return self.cache.with_name(f".{self.cache.name}.notes")

    # Parts

    @property
    def _count(self) -> int:
        return -(-len(self.dataset) // BLOCK)

    def _rows(self, block: int) -> range:
        return range(block * BLOCK, min((block + 1) * BLOCK, len(self.dataset)))

    def _left(self, kind: str) -> list[int]:
        """This process's blocks that are not noted yet."""
        done = self._noted(kind)
        # Asked afterwards, as notes go when the cache is whole: what others have done is not done again.
        self._stop_if_whole()
        return [block for block in range(self.rank, self._count, self.processes) if block not in done]

    def _read(self, parts: list[range], read: Callable[[range], Any], what: str) -> Iterator[Any]:
        """What `read` makes of each part, in workers."""
        workers = min(self.workers, len(parts))
        loader = DataLoader(_Read(parts, read), batch_size=None, num_workers=workers, collate_fn=_as_read)
        return iter(tqdm(loader, desc=f"Caching teacher features: {what}", disable=self.rank > 0 or not parts))

    def _write_view(self, view: int) -> None:
        if not (left := self._left(f"view{view}")):
            return
        self.dataset.set_epoch(view)
        size = self.batch_size
        blocks = [self._rows(block) for block in left]
        parts = [rows[start : start + size] for rows in blocks for start in range(0, len(rows), size)]
        read = partial(_batch, self.dataset, self.collator, self.teacher.reads)
        with Table(self.folder / ROWS, self.views * len(self.dataset)) as table:
            for rows, batch in zip(parts, self._read(parts, read, f"rows, view {view}"), strict=True):
                moved = {name: values.to(self._device) for name, values in batch.items()}
                table.write(view * len(self.dataset) + rows.start, self.teacher.stored(moved).float().cpu())
                if rows.stop % BLOCK == 0 or rows.stop == len(self.dataset):
                    table.sync()
                    self._note(f"view{view}", rows.start // BLOCK)

    @property
    def _device(self) -> torch.device:
        return self.teacher.model.device

    # Between processes

    def _make(self, name: str, make: Callable[[Path], None]) -> None:
        """The first process makes a file, the others wait for it."""
        if self.rank == 0 and not (self.folder / name).exists():
            write_whole(self.folder / name, make)
        while not (self.folder / name).exists():
            self._stop_if_whole()
            time.sleep(PAUSE)

    def _note(self, kind: str, block: int) -> None:
        with (self._notes / f"{kind}-{self.rank}.log").open("ab") as file:
            # A kill leaves at most a shorter line.
            file.write(f"\n{block:0{_DIGITS}d}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def _noted(self, kind: str) -> set[int]:
        logs = self._notes.glob(f"{kind}-*.log")
        return {int(line) for log in logs for line in log.read_bytes().split(b"\n") if len(line) == _DIGITS}

    def _wait_for(self, kind: str) -> None:
        while len(self._noted(kind)) < self._count:
            self._stop_if_whole()
            time.sleep(PAUSE)

    def _stop_if_whole(self) -> None:
        if self.cache.is_dir():
            raise AlreadyWholeError


class _Read(Dataset):
    """What a function makes of each part."""

    def __init__(self, parts: list[range], read: Callable[[range], Any]) -> None:
        self.parts, self.read = parts, read

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Any:
        return self.read(self.parts[index])


def _as_read(part: Any) -> Any:
    """Loaders turn arrays into tensors otherwise."""
    return part


class Table:
    """Rows of an array on disk, written without mapping it: what is mapped counts as memory of the process."""

    def __init__(self, path: Path, rows: int) -> None:
        array = np.load(path, mmap_mode="r")
        self._path, self._start, self._row = path, array.offset, array.nbytes // rows

    def __enter__(self) -> Table:
        self._file = self._path.open("r+b")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def write(self, row: int, values: torch.Tensor) -> None:
        """Writes one row or several that follow each other."""
        self._file.seek(self._start + row * self._row)
        self._file.write(values.numpy().tobytes())

    def sync(self) -> None:
        """Brings to disk what was written."""
        self._file.flush()
        os.fsync(self._file.fileno())


def allocate(path: Path, shape: tuple[int, ...]) -> None:
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape).flush()


def write_whole(path: Path, make: Callable[[Path], Any]) -> None:
    """Lets `make` write a file that has its name once it is whole."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    make(unfinished)
    sync(unfinished)
    os.replace(unfinished, path)


def _batch(dataset: Any, collator: Any, names: tuple[str, ...], rows: range) -> dict[str, torch.Tensor]:
    batch = collator([dataset[row] for row in rows])
    return {name: batch[name] for name in names}
