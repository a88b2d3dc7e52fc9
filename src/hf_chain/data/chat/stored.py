"""Stored conversations of `datasets` rows, brought to the one schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, IterableDataset, LargeList, List, concatenate_datasets
from datasets import Image as ImageFeature

from hf_chain.data.chat.rows import FEATURES, plain_messages
from hf_chain.data.chat.settings import ChatDataSettings
from hf_chain.errors import HfChainError

_IMAGES = Features({"images": FEATURES["images"]})
_TEXTS = Features({name: feature for name, feature in FEATURES.items() if name != "images"})


def uniform_rows(rows: Dataset | IterableDataset, settings: ChatDataSettings) -> Dataset | IterableDataset:
    """Bring rows with `messages` and `images` to the columns of `FEATURES`.

    Image bytes are not copied where the column is a list of images already.

    Args:
        rows (`datasets.Dataset` or `datasets.IterableDataset`): One split.
        settings (`ChatDataSettings`): Names of the columns.

    Raises:
        `HfChainError`: Where the column of the messages is missing.
    """
    columns = rows.column_names or list(next(iter(rows), {}))
    if settings.messages_column not in columns:
        raise HfChainError(
            f"messages_column {settings.messages_column!r} is not in {settings.source}; its columns are "
            f"{', '.join(columns)}: set messages_column"
        )
    texts = _Texts(settings.messages_column)
    images = _Images(settings.images_column, str(_folder(settings)))
    feature = (rows.features or {}).get(settings.images_column)
    listed = isinstance(feature, List | LargeList) and isinstance(feature.feature, ImageFeature)
    if listed:
        rows = rows.cast_column(settings.images_column, FEATURES["images"])
    elif isinstance(feature, ImageFeature):
        rows = rows.cast_column(settings.images_column, ImageFeature(decode=False))
    if isinstance(rows, IterableDataset):
        return rows.map(_Both(texts, images), remove_columns=columns, features=FEATURES)
    only_texts = rows.select_columns([name for name in columns if name in (settings.messages_column, *_TEXTS)])
    parts = [only_texts.map(texts, remove_columns=only_texts.column_names, features=_TEXTS, desc="Reading messages")]
    if listed:
        only_images = rows.select_columns(settings.images_column)
        if settings.images_column != "images":
            only_images = only_images.rename_column(settings.images_column, "images")
        parts.append(only_images)
    else:
        source = rows.select_columns(settings.images_column if settings.images_column in columns else columns[:1])
        parts.append(source.map(images, remove_columns=source.column_names, features=_IMAGES, desc="Reading images"))
    return concatenate_datasets(parts, axis=1).select_columns(list(FEATURES))


@dataclass(frozen=True)
class _Texts:
    column: str

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        answers = row.get("answers")
        return {
            "messages": plain_messages(row[self.column]),
            "kind": str(row.get("kind") or ""),
            "answers": [str(answer) for answer in answers] if isinstance(answers, list) else [],
            "negatives": str(row.get("negatives") or ""),
        }


@dataclass(frozen=True)
class _Images:
    column: str
    folder: str

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        value = row.get(self.column)
        values = value if isinstance(value, list) else [] if value is None else [value]
        return {"images": [self._image(one) for one in values if one is not None]}

    def _image(self, value: Any) -> Any:
        if isinstance(value, str):
            return {"path": value if "://" in value else str(Path(self.folder) / value), "bytes": None}
        return {"path": None, "bytes": value} if isinstance(value, bytes) else value


@dataclass(frozen=True)
class _Both:
    texts: _Texts
    images: _Images

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.texts(row), **self.images(row)}


def _folder(settings: ChatDataSettings) -> Path:
    """The folder that relative image paths start from: the source's own, unless one is given."""
    first: Any = settings.image_folder or settings.data_files or settings.source
    while not isinstance(first, str):
        first = next(iter(first.values() if isinstance(first, dict) else first))
    folder = Path(first).expanduser().resolve()
    while not folder.is_dir():
        folder = folder.parent
    return folder
