"""Images that stand in a row where nobody reads them: a model that is trained on such rows is trained blind."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, IterableDataset, LargeList, List
from datasets import Image as ImageFeature
from PIL import Image

from hf_chain.errors import HfChainError, shortened

_LOOKED_AT = 100
"""Rows of a stored split that are looked at, of those that hold something in a column."""
_BATCH = 10_000
_NAME = re.compile(r"image|img|picture|photo|pixel|jpe?g|png", re.IGNORECASE)
_FILE = re.compile(r"\.(apng|avif|bmp|gif|heic|jp2|jpe?g|png|ppm|tiff?|webp)$", re.IGNORECASE)
_ENCODED = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\x00", b"MM\x00*")
_BASE64 = ("iVBORw0KGgo", "/9j/", "R0lGODdh", "R0lGODlh", "UklGR")
"""How PNG, JPEG, GIF and WebP begin in base64; words that begin as the two letters of the others do are many."""
_NO_IMAGES = ("id",)
"""Columns that may be named after files without being meant for reading."""


def looks_like_image(value: Any, name: str = "") -> bool:
    """Whether a value is an image, or says where one is.

    Args:
        value (`Any`): an image, pixels, an encoded file, a path, an address, `{"bytes", "path"}`, or a list of these.
        name (`str`, *optional*): of its column. What is called an image may be any path, bytes or list of numbers.
    """
    named = _NAME.search(name) is not None
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(_BASE64) and " " not in text:
            return True
        if "\n" in text or text.startswith("data:image/"):
            return text.startswith("data:image/")
        path = text.partition("?")[0]
        # A sentence may end with the name of a file.
        return (path.count(" ") < 6 and bool(_FILE.search(path))) or (
            named and " " not in text and ("/" in text or len(text) > 200)
        )
    if isinstance(value, bytes):
        return value.startswith(_ENCODED) or (named and bool(value))
    if isinstance(value, Mapping):
        return any(looks_like_image(part, f"{name} {key}") for key, part in value.items())
    if isinstance(value, list | tuple):
        pixels = named and any(isinstance(part, list | tuple) and part for part in value)
        return pixels or any(looks_like_image(part, name) for part in value)
    return isinstance(value, Image.Image) or (isinstance(value, np.ndarray) and value.ndim > 1)


def check_row_is_read(row: Mapping[str, Any], read: Collection[str], images: str, source: str) -> None:
    """Refuse a row without images that has something like an image in a column that is not read.

    Args:
        row (`Mapping`): the row.
        read (`Collection[str]`): the columns that are read.
        images (`str`): the one that images are read from.
        source (`str`): whose row it is, for the message.

    Raises:
        `HfChainError`: naming the column and its value.
    """
    if row.get(images):
        return
    for name, value in row.items():
        if name not in read and name not in _NO_IMAGES and value is not None and looks_like_image(value, name):
            raise HfChainError(
                f"column {name!r} of {source} looks like an image, {shortened(value)}, and is not read, as images come"
                f" from {images!r}: set images_column, or leave the column out"
            )


def check_columns_are_read(rows: Dataset | IterableDataset, read: Collection[str], images: str, source: str) -> None:
    """Refuse a split with a column of images that is not read.

    Args:
        rows (`datasets.Dataset` or `datasets.IterableDataset`): the split, with images that are not decoded. Of a
            stream only the types are looked at.
        read (`Collection[str]`): the columns that are read.
        images (`str`): the one that images are read from.
        source (`str`): for the message.

    Raises:
        `HfChainError`: naming the column.
    """
    features = rows.features or Features()
    for name, feature in features.items():
        if name not in read and _holds_images(feature):
            raise HfChainError(
                f"column {name!r} of {source} holds images and is not read, as images come from {images!r}: set"
                " images_column, or leave the column out"
            )
    if isinstance(rows, Dataset):
        # Sounds and films take long to decode, and libraries that are no dependency.
        seen = [name for name, feature in features.items() if name == images or not hasattr(feature, "decode_example")]
        for name in seen:
            if name not in read:
                for row in rows.select_columns(list({name, images} & set(seen))).select(_filled(rows, name)):
                    check_row_is_read(row, read, images, source)


def _filled(rows: Dataset, name: str) -> list[int]:
    """The first rows that hold something in a column: in mixed sets that may be far behind."""
    found, start = [], 0
    for batch in rows.select_columns(name).with_format("arrow").iter(_BATCH):
        column = batch.column(name)
        held = pc.not_equal(column, "") if pa.types.is_string(column.type) else column.is_valid()
        found += [start + place for place in pc.indices_nonzero(held.combine_chunks()).to_pylist()]
        start += len(column)
        if len(found) >= _LOOKED_AT:
            break
    return found[:_LOOKED_AT]


def _holds_images(feature: Any) -> bool:
    if isinstance(feature, List | LargeList):
        return _holds_images(feature.feature)
    return isinstance(feature, ImageFeature) or (isinstance(feature, dict) and feature.keys() == {"bytes", "path"})
