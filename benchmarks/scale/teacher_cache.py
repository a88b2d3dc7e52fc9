"""Peak memory and CPU time of filling a cache of teacher features, by its captions; each in a process of its own.

    python benchmarks/scale/teacher_cache.py

Row 20 of docs/benchmarks/scale.md. Captions, five an image, and images come from a generator, the teacher is tiny.
Memory is what the kernel's count of the process's largest resident size grows by. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from contrastive import largest_resident
from results import add_row
from transformers import CLIPConfig, CLIPModel
from transformers.utils import logging

from hf_chain.distillation import Teacher
from hf_chain.distillation.cache import cached_teacher

SIZES = (1_000, 10_000, 100_000, 1_000_000)
AN_IMAGE, LENGTH, WIDTH, EMBEDDING, BATCH, VOCABULARY = 5, 8, 16, 128, 512, 1_000
AIM = 1_000


class Pairs:
    """Images and captions of their row number."""

    epoch, augmented, seed = 0, False, 0
    settings = SimpleNamespace(image_views=0)

    def __init__(self, rows: int) -> None:
        self.rows, self.fingerprint = rows, f"{rows} rows"

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> int:
        return row

    def set_epoch(self, epoch: int) -> None:
        """Nothing is drawn."""

    def captions(self, row: int) -> list[str]:
        """Captions that no other row has."""
        return [str(AN_IMAGE * row + number) for number in range(AN_IMAGE)]

    def all_captions(self) -> Iterator[str]:
        """All of them."""
        return (caption for row in range(self.rows) for caption in self.captions(row))


class Collator:
    """Pixels and tokens of numbers."""

    def __call__(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Small images, each of one colour."""
        values = torch.tensor(rows).remainder(251) / 251
        return {"pixel_values": values.view(-1, 1, 1, 1).expand(-1, 3, 8, 8)}

    def tokenize(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """Digits as tokens, and an id that is another for each caption and in another order."""
        numbers = torch.tensor([int(caption) for caption in captions])
        digits = [numbers // 10**place % 10 for place in range(LENGTH - 1)]
        ids = torch.stack([*digits, torch.full_like(numbers, VOCABULARY - 1)], dim=1)
        caption_ids = numbers * 0x1E3779B97F4A7C15 + 0x123456789
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "caption_ids": caption_ids}


def main() -> None:
    """Measures each size and adds the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure[0], int(arguments.measure[1]))))
        return
    curves: dict[str, dict[int, float]] = {
        "peak": {},
        "peak, before": {},
        "size of the texts": {size: 4 * EMBEDDING * size / 1e6 for size in SIZES},
        "CPU µs a caption": {},
    }
    for size in SIZES:
        now, before = (measured(way, size) for way in ("now", "before"))
        curves["peak"][size], curves["peak, before"][size] = now["MB"], before["MB"]
        curves["CPU µs a caption"][size] = 1e6 * now["seconds"] / size
    largest = SIZES[-1]
    add_row(
        20,
        f"memory of filling a cache of teacher features with {largest:,} captions",
        "MB, and µs where it says so",
        "captions",
        curves,
        curves["peak"][largest],
        f"< {AIM:,} MB",
        "python benchmarks/scale/teacher_cache.py",
        before=f"{curves['peak, before'][largest]:,.0f}",
    )


def measured(way: str, size: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--measure", way, str(size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(way: str, size: int) -> dict[str, float]:
    """MB by which the process grows, and CPU seconds."""
    logging.disable_progress_bar()
    tower = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = tower | {"vocab_size": VOCABULARY, "max_position_embeddings": LENGTH, "eos_token_id": VOCABULARY - 1}
    vision = tower | {"image_size": 8, "patch_size": 8}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(projection_dim=EMBEDDING, text_config=text, vision_config=vision))
    with tempfile.TemporaryDirectory() as folder:
        fill(way, model, AN_IMAGE * BATCH, Path(folder, "first"))
        memory, start = largest_resident(), time.process_time()
        fill(way, model, size, Path(folder, "cache"))
        return {"MB": (largest_resident() - memory) / 1e3, "seconds": time.process_time() - start}


def fill(way: str, model: CLIPModel, size: int, folder: Path) -> None:
    """Fills a cache, or its captions as it was done before: kept, joined, put in order and saved."""
    dataset: Any = Pairs(size // AN_IMAGE)
    collator: Any = Collator()
    if way == "now":
        cached_teacher(model, dataset, collator, folder, BATCH)
        return
    folder.mkdir()
    teacher, ids, features = Teacher(model), [], []
    captions = iter(dict.fromkeys(dataset.all_captions()))
    while chunk := list(islice(captions, BATCH)):
        texts = collator.tokenize(chunk)
        batch = {name: texts[name].unsqueeze(1) for name in ("input_ids", "attention_mask")}
        features.append(teacher.text_features(batch).squeeze(1).numpy())
        ids.append(texts["caption_ids"].numpy())
    unique, first = np.unique(np.concatenate(ids), return_index=True)
    np.save(folder / "caption_ids.npy", unique)
    np.save(folder / "texts.npy", np.concatenate(features)[first])


if __name__ == "__main__":
    main()
