"""Whether the image files that a data set names are still those that were looked at."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_chain.images import local_path

_ROWS = 10_000
_LOOKED_AT: ContextVar[dict[tuple[str, str], str] | None] = ContextVar("files_looked_at", default=None)


def image_files_key(rows: Dataset, column: str) -> str:
    """Hash of path, size and time of change of the image files that are named by their path alone.

    Args:
        rows (`datasets.Dataset`): Rows with images, or lists of images, that are not decoded. Images that it holds are
            not read: they are part of its fingerprint.
        column (`str`): Column of the images.

    Returns:
        `str`: Another one when a file was changed, replaced or removed.
    """
    known, asked = _LOOKED_AT.get(), (rows._fingerprint, column)
    if known is not None and asked in known:
        return known[asked]
    digest = hashlib.blake2b(digest_size=16)
    # Rows that hold all their images need not be read.
    if len(_named(rows.data.column(column))):
        for table in rows.select_columns(column).with_format("arrow").iter(_ROWS):
            for path in _named(table.column(column)).to_pylist():
                digest.update(_stamp(path).encode())
    if known is not None:
        known[asked] = digest.hexdigest()
    return digest.hexdigest()


@contextmanager
def files_looked_at_once() -> Iterator[None]:
    """Within it, keys of the same rows are made once: a file system of a network takes hours for millions of files."""
    token = _LOOKED_AT.set({})
    try:
        yield
    finally:
        _LOOKED_AT.reset(token)


def _stamp(path: str) -> str:
    try:
        found = os.stat(local_path(path))
    except (OSError, ValueError):
        return f"{path}\n"
    return f"{path} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n"


def _named(images: pa.ChunkedArray) -> pa.ChunkedArray:
    """Paths of the images of which there is a path alone."""
    if pa.types.is_list(images.type) or pa.types.is_large_list(images.type):
        images = pc.list_flatten(images)
    if not pa.types.is_struct(images.type) or not {"bytes", "path"} <= {field.name for field in images.type}:
        return images.drop_null() if pa.types.is_string(images.type) else images.slice(0, 0)
    return pc.struct_field(images, "path").filter(pc.is_null(pc.struct_field(images, "bytes"))).drop_null()
