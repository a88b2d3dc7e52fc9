"""Rows of a text source, read as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import load_dataset, load_from_disk

from hf_chain.errors import HfChainError

Row = str | Mapping[str, Any]
"""A text, or a mapping that holds one or a conversation."""

_FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}


def stream_rows(source: str | Path, split: str) -> Iterable[Row]:
    """Open a source without reading it; local files never need the network.

    Args:
        source (`str` or `Path`): A file (JSON, JSON lines, parquet, CSV, arrow; any other is text with one sample a
            line), a folder of such files, a folder written by `save_to_disk`, or a name on the Hub.
        split (`str`): The split; a file has none.

    Raises:
        `HfChainError`: Where it cannot be opened; the message is one line.
    """
    path = Path(source).expanduser()
    try:
        if (path / "state.json").exists():
            return load_from_disk(str(path))
        if (path / "dataset_dict.json").exists():
            return load_from_disk(str(path))[split]
        if path.is_file():
            kind = _FORMATS.get(path.suffix, "text")
            return load_dataset(kind, data_files=str(path), split="train", streaming=True)
        return load_dataset(str(path) if path.is_dir() else str(source), split=split, streaming=True)
    except Exception as error:  # Each format and the Hub raise errors of their own.
        raise HfChainError(
            f"split {split!r} of {source} cannot be opened, {_reason(error)}; check path, split and network"
        ) from error


def read_rows(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """Read rows; streams find out only now whether their files are whole.

    Args:
        rows (`Iterable`): An open source.
        name (`str`): What it is called in an error.

    Raises:
        `HfChainError`: Where a row cannot be read; the message is one line.
    """
    try:
        yield from rows
    except HfChainError:
        raise
    except Exception as error:
        raise HfChainError(f"{name} cannot be read to its end, {_reason(error)}; mend its files") from error


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: " + " ".join(str(cause).split())[:200].rstrip(".")
