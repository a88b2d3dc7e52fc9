"""Files that rows name: images looked at once, and paths taken literally."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from hf_chain.errors import HfChainError
from hf_chain.files import as_pattern
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


FORMATS = {
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
    ".txt": "text",
}
"""Suffix of a file -> the format of `datasets` that reads it."""
FORMAT_NAMES = {*FORMATS.values(), "imagefolder"}

_BESIDE_IMAGES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def by_name(name: str, config_name: str | None = None, data_files: Any = None) -> dict[str, Any]:
    """Arguments of `datasets.load_dataset` with which every existing folder and file is taken by its name.

    Args:
        name (`str`): a format, a folder or a name on the Hub.
        config_name (`str`, *optional*): configuration of a data set that has several.
        data_files (`str`, `list` or `dict`, *optional*): files or patterns; they start in `name`, where it
            is a folder.

    Raises:
        HfChainError: when a path cannot be taken by its name.
    """
    folder = Path(name).absolute() if Path(name).is_dir() else None
    if data_files is not None and (folder is not None or name in FORMAT_NAMES):
        data_files = _patterns(data_files, folder or ".")
    found = {"path": name, "name": config_name, "data_files": data_files}
    if folder is not None and glob.has_magic(str(folder)):
        card = folder / "README.md"
        if config_name or (card.is_file() and b"configs:" in card.read_bytes()):
            raise HfChainError(f"{folder} has configurations, and *, ? or [ in its full name: rename the folder")
        # The library escapes nothing in a folder's name, and takes a pattern for `data_dir`.
        found |= {"path": _format(folder), "data_dir": as_pattern(str(folder))}
    return found


def _patterns(files: Any, folder: str | Path) -> Any:
    if isinstance(files, dict):
        return {split: _patterns(names, folder) for split, names in files.items()}
    return [_patterns(name, folder) for name in files] if isinstance(files, list) else as_pattern(files, folder)


def _format(folder: Path) -> str:
    """What reads most files of a folder; `datasets` looks for itself, but not in folders with such names."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".", "README")))
    kinds = Counter(FORMATS.get(path.suffix, "imagefolder") for path in files if path.name not in _BESIDE_IMAGES)
    if not kinds:
        raise HfChainError(f"{folder} holds no files to read: check the path")
    return kinds.most_common(1)[0][0]
