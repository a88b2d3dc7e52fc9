"""Photograph-like JPEG files with captions, made by a generator."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

WORDS = (
    "a",
    "the",
    "two",
    "red",
    "old",
    "small",
    "dog",
    "cat",
    "boat",
    "street",
    "of",
    "near",
    "with",
    "grass",
    "snow",
)


def jpegs(number: int, seed: int = 0, size: tuple[int, int] = (320, 256)) -> Iterator[tuple[bytes, str]]:
    """Yield encoded images, of waves with noise (about 30 kB), and captions of twelve words, all different."""
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    for row in range(number):
        waves = [127 + 90 * np.sin(x * a + y * b) for a, b in random.uniform(0.01, 0.2, (3, 2))]
        pixels = np.stack(waves, -1) + random.normal(0, 6, (*x.shape, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        yield file.getvalue(), f"{' '.join(random.choice(WORDS, 11))} {row}"


def write_tars(folder: Path, files: int, rows: int, distinct: int = 256) -> str:
    """Write shards in the format of webdataset, with `distinct` images over and over, and return their pattern."""
    pairs = list(jpegs(distinct))
    for file in range(files):
        with tarfile.open(folder / f"{file:05d}.tar", "w") as tar:
            for row in range(rows):
                image, caption = pairs[(file * rows + row) % distinct]
                for suffix, content in (("jpg", image), ("txt", caption.encode())):
                    entry = tarfile.TarInfo(f"{row:06d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))
    return str(folder / "*.tar")
