"""JPEG files and captions to a batch, against open_clip's transform and tokenizer.

    python benchmarks/scale/pipeline.py

Needs `open_clip_torch` and `torchvision`. Both ways read the same rows of a `datasets` table in one process and take
turns in batches; ratios are medians over rounds of CPU time.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageColumn
from jpegs import jpegs
from open_clip_peer import open_clip
from PIL import Image
from results import add_row
from torch.utils.data import default_collate

from hf_chain.cli import exit_cleanly
from hf_chain.data import DataSettings, ImageTextCollator, ImageTextDataset, build_processor, train_tokenizer

BATCH, BATCHES, ROUNDS = 64, 4, 15
SIZES = {224: (224, 224), 256: (320, 256), 512: (683, 512)}
"""Shorter side to width and height of the files. Decoding and resizing are the same code in both, and most of the time
in large files."""

Way = Callable[[list[int]], Any]


def main() -> None:
    """Measure both ways at each size of the files."""
    torch.set_num_threads(1)
    curves: dict[str, dict[int, float]] = {"ImageTextDataset and ImageTextCollator": {}, "open_clip": {}}
    ratios = []
    for side, size in SIZES.items():
        ways = dict(zip(curves, _ways(size), strict=True))
        rounds = [{name: _milliseconds(way, turn) for name, way in ways.items()} for turn in range(ROUNDS + 1)][1:]
        ours, theirs = ([taken[name] for taken in rounds] for name in curves)
        for name, curve in curves.items():
            curve[side] = median(taken[name] for taken in rounds)
        ratios.append(median(own / other for own, other in zip(ours, theirs, strict=True)))
        print(f"files of {size[0]} × {size[1]}: {ratios[-1]:.3f} ×", flush=True)
    add_row(
        18,
        "224 px JPEG to batch, against open_clip's transform and tokenizer",
        "CPU ms an image",
        "shorter side of the file in pixels",
        curves,
        ratios[0],
        "≤ 0.9 ×",
        "python benchmarks/scale/pipeline.py",
        before="1.28 ×",
    )


def _ways(size: tuple[int, int]) -> tuple[Way, Way]:
    images, captions = zip(*jpegs(BATCH * BATCHES, size=size), strict=True)
    columns = {"image": [{"bytes": image, "path": None} for image in images], "text": list(captions)}
    rows = Dataset.from_dict(columns, features=Features({"image": ImageColumn(), "text": Value("string")}))
    pairs = ImageTextDataset(rows, DataSettings(source="images", caption_column="text"))
    collator = ImageTextCollator(build_processor(train_tokenizer(captions, 2_000, 77), 224))
    transform, tokenizer = open_clip.image_transform(224, is_train=False), open_clip.get_tokenizer("ViT-B-32")
    stored = rows.cast_column("image", ImageColumn(decode=False))

    def theirs(numbers: list[int]) -> Any:
        taken = [stored[number] for number in numbers]
        pixels = [transform(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in taken]
        return default_collate(pixels), tokenizer([row["text"] for row in taken])

    return lambda numbers: collator([pairs[number] for number in numbers]), theirs


def _milliseconds(way: Way, turn: int) -> float:
    numbers = list(range(turn % BATCHES * BATCH, (turn % BATCHES + 1) * BATCH))
    start = time.process_time()
    way(numbers)
    return (time.process_time() - start) / BATCH * 1e3


if __name__ == "__main__":
    exit_cleanly(main)
