"""The pictures that a grafting page talks about, numbered, on one sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

COLUMNS, SIDE, LABEL = 5, 112, 16
"""Pictures in a row, and pixels of a picture and of the number above it."""


def contact_sheet(pictures: Mapping[int, Path], path: Path) -> None:
    """Writes a sheet of numbered pictures.

    Args:
        pictures (`Mapping[int, Path]`): number -> file.
        path (`Path`): the sheet, a PNG file.
    """
    width, height = SIDE + 4, SIDE + LABEL + 4
    columns = min(COLUMNS, len(pictures))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (number, picture) in enumerate(pictures.items()):
        left, top = place % columns * width + 2, place // columns * height + 2
        draw.text((left, top), str(number), fill="black")
        with Image.open(picture) as opened:
            image = opened.convert("RGB")
        scale = SIDE / max(image.size)
        image = image.resize([max(1, round(scale * side)) for side in image.size])
        sheet.paste(image, (left, top + LABEL))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save(path, optimize=True)


def may_be_shown(sources: Sequence[str]) -> bool:
    """Whether a page may show pictures of these data: rendered ones are ours, photographs are not ours to publish."""
    return all(source.startswith("scenes") for source in sources)
