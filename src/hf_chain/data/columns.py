"""Checks that a source has the columns the settings name, and reading of its rows without decoding images."""

from __future__ import annotations

from typing import TypeVar

from datasets import Dataset, Image, IterableDataset

from hf_chain.data.settings import DataSettings
from hf_chain.errors import HfChainError

AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


def used_columns(settings: DataSettings) -> list[str]:
    """Return the columns that training reads."""
    names = (settings.image_column, settings.caption_column, settings.label_column, settings.class_names_column)
    return list(dict.fromkeys(name for name in names if name is not None))


def check_columns(dataset: Dataset | IterableDataset, settings: DataSettings) -> None:
    """Raise `HfChainError` where a column of the settings is not in the source.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`): A split; of a stream without known features one
            row is read.
        settings (`DataSettings`): Names of the columns.
    """
    available = dataset.column_names
    if available is None:
        available = list(next(iter(dataset), {}))
    fields = ("image_column", "caption_column", "label_column", "class_names_column")
    for field in fields:
        column = getattr(settings, field)
        if column is not None and column not in available:
            raise HfChainError(
                f"{field} {column!r} is not in {settings.source}; its columns are {', '.join(available)}: set {field}"
            )


def undecoded(dataset: AnyDataset, settings: DataSettings) -> AnyDataset:
    """Return the used columns only, images as bytes or path.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`): A split.
        settings (`DataSettings`): Names of the columns.

    Returns:
        The same kind of data set, whose rows can be read even where an image is broken.
    """
    return with_stored_images(dataset.select_columns(used_columns(settings)), settings.image_column)


def with_stored_images(dataset: AnyDataset, image_column: str) -> AnyDataset:
    """Return all columns, images as bytes or path.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`): A split.
        image_column (`str`): Column of the images; of another type than `datasets.Image` it stays as it is.
    """
    if dataset.features is not None and isinstance(dataset.features[image_column], Image):
        return dataset.cast_column(image_column, Image(decode=False))
    return dataset
