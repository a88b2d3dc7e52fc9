"""Folders and files for `datasets.load_dataset`, which would take characters of their names for patterns."""

from __future__ import annotations

import glob
from collections import Counter
from pathlib import Path
from typing import Any

from hf_chain.errors import HfChainError
from hf_chain.paths import as_pattern

FORMATS = {
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
}
"""Suffix of a file -> the format of `datasets` that reads it."""
FORMAT_NAMES = {*FORMATS.values(), "imagefolder", "text"}

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
    kinds = Counter(
        "text" if path.suffix == ".txt" else FORMATS.get(path.suffix, "imagefolder")
        for path in files
        if path.name not in _BESIDE_IMAGES
    )
    if not kinds:
        raise HfChainError(f"{folder} holds no files to read: check the path")
    return kinds.most_common(1)[0][0]
