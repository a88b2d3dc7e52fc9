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
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from hf_chain.distillation.teacher import Teacher
from hf_chain.files import sync

if TYPE_CHECKING:
    from hf_chain.data import ImageTextCollator

IMAGES, TEXTS, CAPTION_IDS = "images.npy", "texts.npy", "caption_ids.npy"
BLOCK = 1_024
"""Rows that are computed and noted together."""
SORTED_AT_ONCE = 1 << 22
"""Caption ids, of 12 bytes each with their block."""
PAUSE = 0.2
"""Seconds between looks at what other processes have done."""
_DIGITS = 12
_OWNERS, _SORTED = "owners.bin", "sorted.bin"


class AlreadyWholeError(Exception):
    """The first process has finished the cache, to which this one had nothing left to add."""


@dataclass(frozen=True)
class Filling:
    """What one process does of a cache.

    Args:
        teacher (`Teacher`): whose features.
        dataset (`ImageTextDataset`): the training pairs.
        collator (`ImageTextCollator`): makes the batches.
        cache (`Path`): the cache when it is whole. What it will hold, and what is noted of it, are beside it until
            then, and may be there from an earlier attempt.
        views (`int`): views of an image.
        batch_size (`int`): samples in a forward.
        workers (`int`): further processes that read, decode and tokenize.
        rank (`int`): of this process; the first one makes the files.
        processes (`int`): how many there are; all see `cache`.
    """

    teacher: Teacher
    dataset: Any
    collator: ImageTextCollator
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
        for folder in (self.folder, self._notes):
            folder.mkdir(parents=True, exist_ok=True)
        if self.rank == 0 and not (self.folder / IMAGES).exists():
            # What was noted is gone.
            for path in self._notes.iterdir():
                path.unlink()
        size = self.teacher.embedding_size
        self._make(IMAGES, lambda path: _allocate(path, (self.views, len(self.dataset), size)))
        self._write_ids()
        self._wait_for("ids")
        self._make(CAPTION_IDS, self._sort_ids)
        self._make(TEXTS, lambda path: _allocate(path, (self.captions, size)))
        self._write_texts()
        for view in range(self.views):
            self._write_images(view)
        if self.rank == 0:
            for kind in ("texts", *(f"view{view}" for view in range(self.views))):
                self._wait_for(kind)

    def finish(self) -> None:
        """Gives the cache its name, then forgets what was noted."""
        os.replace(self.folder, self.cache)
        sync(self.cache.parent)
        shutil.rmtree(self._notes)

    @property
    def captions(self) -> int:
        """Different captions, once all are known."""
        return len(np.load(self.folder / CAPTION_IDS, mmap_mode="r"))

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

    def _write_ids(self) -> None:
        left = self._left("ids")
        read = partial(_unique_captions, self.dataset, self.collator)
        for block, (ids, _) in zip(left, self._read([self._rows(block) for block in left], read, "ids"), strict=True):
            _write(self._notes / f"ids-{block}.npy", partial(np.save, arr=ids))
            self._note("ids", block)

    def _sort_ids(self, path: Path) -> None:
        """Every different id once, in order, and beside it the first block that has it."""
        files = [self._notes / f"ids-{block}.npy" for block in range(self._count)]
        parts = max(1, -(-sum(np.load(file, mmap_mode="r").size for file in files) // SORTED_AT_ONCE))
        edges = [-(2**63) + part * 2**64 // parts for part in range(parts + 1)]
        total = 0
        with (self._notes / _SORTED).open("wb") as sorted_ids, (self._notes / _OWNERS).open("wb") as owners:
            for low, high in pairwise(edges):
                found = [ids[(ids >= low) & (ids <= high - 1)] for ids in map(np.load, files)]
                unique, first = np.unique(np.concatenate(found), return_index=True)
                owner = np.repeat(np.arange(len(found), dtype=np.int32), [len(ids) for ids in found])
                sorted_ids.write(unique.tobytes())
                owners.write(owner[first].tobytes())
                total += len(unique)
        sync(self._notes / _OWNERS)
        store = np.lib.format.open_memmap(path, mode="w+", dtype=np.int64, shape=(total,))
        unfinished = np.memmap(self._notes / _SORTED, np.int64, "r", shape=(total,))
        for start in range(0, total, SORTED_AT_ONCE):
            store[start : start + SORTED_AT_ONCE] = unfinished[start : start + SORTED_AT_ONCE]
        store.flush()

    def _write_texts(self) -> None:
        if not (left := self._left("texts")):
            return
        ids_of_all = np.load(self.folder / CAPTION_IDS, mmap_mode="r")
        owners = np.memmap(self._notes / _OWNERS, np.int32, "r", shape=ids_of_all.shape)
        read = partial(_unique_captions, self.dataset, self.collator, tokens=True)
        made = self._read([self._rows(block) for block in left], read, "captions")
        with _Table(self.folder / TEXTS) as table:
            for block, (ids, tokens) in zip(left, made, strict=True):
                rows = np.searchsorted(ids_of_all, ids)
                # A caption of several blocks is the first one's.
                own = np.flatnonzero(owners[rows] == block)
                for start in range(0, len(own), self.batch_size):
                    part = own[start : start + self.batch_size]
                    chosen = torch.from_numpy(part)
                    batch = {name: values[chosen].unsqueeze(1).to(self._device) for name, values in tokens.items()}
                    features = self.teacher.text_features(batch).cpu()
                    for row, feature in zip(rows[part], features, strict=True):
                        table.write(int(row), feature)
                table.sync()
                self._note("texts", block)

    def _write_images(self, view: int) -> None:
        if not (left := self._left(f"view{view}")):
            return
        self.dataset.set_epoch(view)
        size = self.batch_size
        blocks = [self._rows(block) for block in left]
        parts = [rows[start : start + size] for rows in blocks for start in range(0, len(rows), size)]
        made = self._read(parts, partial(_pixels, self.dataset, self.collator), f"images, view {view}")
        with _Table(self.folder / IMAGES) as table:
            for rows, pixels in zip(parts, made, strict=True):
                features = self.teacher.image_features(pixels.to(self._device)).cpu()
                table.write(view * len(self.dataset) + rows.start, features)
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
            _write(self.folder / name, make)
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


class _Table:
    """Rows of an array on disk, written without mapping it: what is mapped counts as memory of the process."""

    def __init__(self, path: Path) -> None:
        array = np.load(path, mmap_mode="r")
        self._path, self._start, self._row = path, array.offset, array.shape[-1] * array.itemsize

    def __enter__(self) -> _Table:
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


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape).flush()


def _write(path: Path, make: Callable[[Path], Any]) -> None:
    """Lets `make` write a file that has its name once it is whole."""
    unfinished = path.with_name(f"unfinished-{path.name}")
    make(unfinished)
    sync(unfinished)
    os.replace(unfinished, path)


def _unique_captions(
    dataset: Any, collator: ImageTextCollator, rows: range, tokens: bool = False
) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    """Ids of the different captions of some rows, in order, and their tokens."""
    captions = dict.fromkeys(caption for row in rows for caption in dataset.captions(row))
    if not captions:
        return np.empty(0, dtype=np.int64), {}
    texts = collator.tokenize(list(captions))
    # Captions that are cut to the same tokens have one id.
    ids, first = np.unique(texts["caption_ids"].numpy(), return_index=True)
    chosen = torch.from_numpy(first)
    return ids, {name: texts[name][chosen] for name in ("input_ids", "attention_mask")} if tokens else {}


def _pixels(dataset: Any, collator: ImageTextCollator, rows: range) -> torch.Tensor:
    return collator([dataset[row] for row in rows])["pixel_values"]
