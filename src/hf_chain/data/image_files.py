"""Whether the image files that a data set names are still those that were looked at."""

from __future__ import annotations

import hashlib
import os

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

_ROWS = 10_000


def image_files_key(rows: Dataset, column: str) -> str:
    """Hash of path, size and time of change of the image files that are named by their path alone.

    Args:
        rows (`datasets.Dataset`): Rows with images, or lists of images, that are not decoded. Images that it holds are
            not read: they are part of its fingerprint.
        column (`str`): Column of the images.

    Returns:
        `str`: Another one when a file was changed, replaced or removed.
    """
    digest = hashlib.blake2b(digest_size=16)
    # Rows that hold all their images need not be read.
    if len(_named(rows.data.column(column))):
        for table in rows.select_columns(column).with_format("arrow").iter(_ROWS):
            for path in _named(table.column(column)).to_pylist():
                digest.update(_stamp(path).encode())
    return digest.hexdigest()


def _stamp(path: str) -> str:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return f"{path}\n"
    return f"{path} {found.st_size} {found.st_mtime_ns}\n"


def _named(images: pa.ChunkedArray) -> pa.ChunkedArray:
    """Paths of the images of which there is a path alone."""
    if pa.types.is_list(images.type) or pa.types.is_large_list(images.type):
        images = pc.list_flatten(images)
    if not pa.types.is_struct(images.type):
        return images.drop_null() if pa.types.is_string(images.type) else images.slice(0, 0)
    return pc.struct_field(images, "path").filter(pc.is_null(pc.struct_field(images, "bytes"))).drop_null()
