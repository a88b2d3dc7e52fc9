"""Loading of splits from any place `datasets` can read."""

from __future__ import annotations

import glob
from collections.abc import Callable, Collection, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from datasets import (
    Dataset,
    DatasetDict,
    Image,
    IterableDataset,
    Value,
    load_dataset,
    load_dataset_builder,
    load_from_disk,
)

from hf_chain.data.captions import check_columns, undecoded
from hf_chain.data.files import FORMAT_NAMES, FORMATS, by_name
from hf_chain.data.scenes import scenes_of_split
from hf_chain.data.settings import ImageSettings, SourceSettings
from hf_chain.data.stories import stories_splits
from hf_chain.data.streams import number_of_lanes
from hf_chain.data.text_settings import STORIES, TextSettings
from hf_chain.errors import HfChainError, reason_behind
from hf_chain.files import as_pattern

_TEXT = (Value("string"), Value("large_string"))
_BYTES = (Value("binary"), Value("large_binary"))


def load_splits(
    settings: ImageSettings | TextSettings, seed: int = 0, only: Collection[str] | None = None
) -> dict[str, Dataset | IterableDataset]:
    """Load the splits that a recipe names.

    Local files never need the network.

    Args:
        settings (`ImageSettings` or `TextSettings`): The source and the names of its splits.
        seed (`int`, *optional*, defaults to 0): Seed of the random training subset and of a stream's order.
        only (`Collection[str]`, *optional*): Splits to load, by those names; all of them by default.

    Returns:
        `dict[str, Dataset | IterableDataset]`: `train`, `validation` (unless switched off) and every test split.

    Raises:
        `HfChainError`: Where the source or a split cannot be found or read; the message is one line.
    """
    wanted = {"train": settings.train_split}
    if settings.validation_split is not None:
        wanted["validation"] = settings.validation_split
    wanted.update({name: name for name in settings.test_splits})
    wanted = {role: split for role, split in wanted.items() if only is None or role in only}
    splits = {}
    split = ""
    try:
        load = _loader(settings)
        for role, split in wanted.items():
            rows = load(split)
            splits[role] = rows if isinstance(settings, TextSettings) else _with_images(rows, settings)
    except HfChainError:
        raise
    except Exception as error:  # Each format and the Hub raise errors of their own.
        raise HfChainError(
            f"split {split!r} of {settings.source} cannot be loaded, {reason_behind(error)}; "
            "check source, data_files, the split's name, the network and the disk"
        ) from error
    for role, rows in splits.items():
        if isinstance(rows, Dataset) and len(rows) == 0:
            raise HfChainError(f"split {wanted[role]!r} of {settings.source} has no rows; choose another")
    if "train" in splits:
        splits["train"] = _training_rows(splits["train"], settings, seed)
    return splits


def stream_files(settings: SourceSettings, split: str) -> list[str]:
    """Return paths or addresses of the files that a streamed split is read from.

    Args:
        settings (`SourceSettings`): The source.
        split (`str`): Name of the split in the source.
    """
    name, data_files = _name_and_files(settings)
    try:
        found = load_dataset_builder(name, settings.config_name, data_files=data_files).config.data_files
    except Exception as error:  # Each format and the Hub raise errors of their own.
        raise HfChainError(f"the files of {settings.source} cannot be listed, {reason_behind(error)}") from error
    return [str(file) for file in (found or {}).get(split, [])]


def _loader(settings: ImageSettings | TextSettings) -> Callable[[str], Dataset | IterableDataset]:
    if isinstance(settings, TextSettings):
        if settings.source == STORIES:
            return lambda split: stories_splits(settings.stories, [split])[split]
    elif settings.source == "scenes":
        return lambda split: scenes_of_split(settings.scenes, split)
    path = Path(settings.source).expanduser()
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        loaded = load_from_disk(str(path))
        return _from_dict(loaded if isinstance(loaded, DatasetDict) else DatasetDict(train=loaded), settings)
    name, data_files = _name_and_files(settings)
    found = by_name(name, settings.config_name, data_files)
    if isinstance(settings, TextSettings) and settings.sample_by != "line":
        found["sample_by"] = settings.sample_by
    return lambda split: load_dataset(**found, split=split, streaming=settings.streaming)


def _from_dict(splits: Mapping[str, Dataset], settings: SourceSettings) -> Callable[[str], Dataset]:
    def load(split: str) -> Dataset:
        if split not in splits:
            raise HfChainError(f"split {split!r} is not in {settings.source}; it has {', '.join(splits)}")
        return splits[split]

    return load


def _name_and_files(settings: SourceSettings) -> tuple[str, Any]:
    source = settings.source
    if source in FORMAT_NAMES and not Path(source).is_dir():
        if settings.data_files is None:
            raise HfChainError(f"source {source!r} is a format; say which files in data_files")
        return source, settings.data_files
    suffix = Path(source).suffix
    if suffix in FORMATS and not Path(source).is_dir():
        if "://" not in source and not glob.glob(as_pattern(source), recursive=True):
            raise HfChainError(f"no file matches source {source!r}; check the path")
        return FORMATS[suffix], settings.data_files or source
    path = Path(source).expanduser()
    if not path.exists() and (source.startswith((".", "/", "~")) or source.count("/") > 1) and "://" not in source:
        raise HfChainError(f"source {source!r} is no folder here; check the path")
    return str(path) if path.exists() else source, settings.data_files


def _with_images(rows: Dataset | IterableDataset, settings: ImageSettings) -> Dataset | IterableDataset:
    """Let the image column decode to images where it holds paths, bytes, or `{"bytes", "path"}` of a plain parquet."""
    column = settings.image_column
    kind = (rows.features or {}).get(column)
    if kind in _TEXT:
        rows = rows.map(_join_path, fn_kwargs={"column": column, "folder": str(_folder(settings).resolve())})
    encoded = kind in (*_TEXT, *_BYTES) or (isinstance(kind, dict) and kind.keys() == {"bytes", "path"})
    # A mapped stream has no features to cast; its paths are read where they are used.
    return rows.cast_column(column, Image()) if encoded and rows.features is not None else rows


def _folder(settings: ImageSettings) -> Path:
    """The folder of the first file, from which relative image paths start."""
    first: Any = settings.data_files or settings.source
    while not isinstance(first, str):
        first = next(iter(first.values() if isinstance(first, dict) else first))
    folder = Path(first).expanduser()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _join_path(row: dict[str, Any], column: str, folder: str) -> dict[str, Any]:
    path = row[column]
    return {column: path if not path or "://" in path else str(Path(folder) / path)}


def rows_in_memory(stream: IterableDataset, settings: ImageSettings, most_rows: int | None = None) -> Dataset:
    """Read a stream to its end, or its first rows, for an evaluation that needs to know how many rows there are.

    Args:
        stream (`datasets.IterableDataset`): A split.
        settings (`ImageSettings`): Names of the columns that are kept.
        most_rows (`int`, *optional*): Rows to read.

    Returns:
        `datasets.Dataset`: The rows, images as they were encoded.

    Raises:
        `HfChainError`: Where a column is missing or there are no rows.
    """
    check_columns(stream, settings)
    rows = list(undecoded(stream if most_rows is None else stream.take(most_rows), settings))
    if not rows:
        raise HfChainError(f"a streamed split of {settings.source} has no rows; choose another")
    return Dataset.from_list(rows).cast_column(settings.image_column, Image())


def _training_rows(
    train: Dataset | IterableDataset, settings: ImageSettings | TextSettings, seed: int
) -> Dataset | IterableDataset:
    most = settings.max_train_samples
    if isinstance(train, IterableDataset):
        lanes = number_of_lanes(train.num_shards, settings.stream_lanes)
        options = {"buffer_size": max(1, settings.shuffle_buffer // lanes)}
        if "max_buffer_input_shards" in signature(train.shuffle).parameters:
            # Newer versions of `datasets` fill a buffer from several files at a time; open are ten in all.
            options["max_buffer_input_shards"] = max(1, 10 // lanes)
        shuffled = train.shuffle(seed=seed, **options)
        return shuffled if most is None else shuffled.take(most)
    if most is not None and isinstance(settings, TextSettings):
        # Documents are no rows yet: packing stops when there are enough.
        return train.shuffle(seed=seed)
    if most is None or most >= len(train):
        return train
    return train.shuffle(seed=seed).select(range(most))
