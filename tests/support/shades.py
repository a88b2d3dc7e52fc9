"""Grey pictures whose shade is their class, for tests of transfer."""

from __future__ import annotations

from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow

NAMES = ["dark", "dull", "light"]


def pictures(count: int, names: list[str] = NAMES) -> Dataset:
    """Grey pictures, each class of its own shade."""
    features = Features({"picture": Image(), "shade": ClassLabel(names=names)})
    images = [Pillow.new("RGB", (16, 16), (80 * (row % 3) + row % 9,) * 3) for row in range(count)]
    return Dataset.from_dict({"picture": images, "shade": [row % 3 for row in range(count)]}, features=features)
