"""Filling a cache of a dual encoder's teacher: every different caption once, and every image in every view."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_chain.distillation.filling import Filling, Table, allocate, write_whole
from hf_chain.files import sync

TEXTS, CAPTION_IDS = "texts.npy", "caption_ids.npy"
SORTED_AT_ONCE = 1 << 22
"""Caption ids, of 12 bytes each with their block."""
_OWNERS, _SORTED = "owners.bin", "sorted.bin"


@dataclass(frozen=True)
class PairFilling(Filling):
    """The same of images and captions; its teacher is a `Teacher`, its collator an `ImageTextCollator`."""

    def run(self) -> None:
        """Captions first: what they are is known from the data alone."""
        self._begin()
        self._write_ids()
        self._wait_for("ids")
        self._make(CAPTION_IDS, self._sort_ids)
        self._make(TEXTS, lambda path: allocate(path, (self.captions, self.teacher.embedding_size)))
        self._write_texts()
        super().run()
        if self.rank == 0:
            self._wait_for("texts")

    @property
    def captions(self) -> int:
        """Different captions, once all are known."""
        return len(np.load(self.folder / CAPTION_IDS, mmap_mode="r"))

    def _write_ids(self) -> None:
        left = self._left("ids")
        read = partial(_unique_captions, self.dataset, self.collator)
        for block, (ids, _) in zip(left, self._read([self._rows(block) for block in left], read, "ids"), strict=True):
            write_whole(self._notes / f"ids-{block}.npy", partial(np.save, arr=ids))
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
        with Table(self.folder / TEXTS, self.captions) as table:
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


def _unique_captions(
    dataset: Any, collator: Any, rows: range, tokens: bool = False
) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    """Ids of the different captions of some rows, in order, and their tokens."""
    captions = dict.fromkeys(caption for row in rows for caption in dataset.captions(row))
    if not captions:
        return np.empty(0, dtype=np.int64), {}
    texts = collator.tokenize(list(captions))
    # Captions that are cut to the same tokens have one id.
    ids, first = np.unique(texts["caption_ids"].numpy(), return_index=True)
    chosen = torch.from_numpy(first)
    return ids, {name: values[chosen] for name, values in texts.items() if name != "caption_ids"} if tokens else {}
