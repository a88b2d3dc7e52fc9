"""The rows of a data set of a suite: splits, columns and classes, found or checked before anything is measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Image

from hf_chain.data import ImageSettings, load_splits
from hf_chain.data.captions import LabelReader
from hf_chain.data.prompts import checked_templates, resolve_templates
from hf_chain.errors import HfChainError, reason
from hf_chain.transfer.settings import TEXT_FILE, TransferSet

LABELS = ("label", "labels", "cls")
"""Columns that hold class numbers where none is a ClassLabel; the last is what tar shards have."""


class OutOfReach(HfChainError):
    """A data set cannot be loaded here: it is skipped."""


@dataclass(frozen=True)
class LoadedSet:
    """A data set that can be measured on.

    Args:
        settings (`TransferSet`): What the suite says of it.
        test (`datasets.Dataset`): The split that is judged.
        train (`datasets.Dataset`, *optional*): The training split, where it is needed.
        image_column (`str`): Column of images.
        label_column (`str`): Column of class numbers.
        class_names (`list[tuple[str, ...]]`): The names of each class.
        templates (`tuple[str, ...]`): Prompts.
    """

    settings: TransferSet
    test: Dataset
    train: Dataset | None
    image_column: str
    label_column: str
    class_names: list[tuple[str, ...]]
    templates: tuple[str, ...]

    @property
    def data(self) -> ImageSettings:
        """Its columns, as data sets for training take them."""
        return _image_settings(self.settings, image_column=self.image_column, label_column=self.label_column)


def load_set(settings: TransferSet) -> LoadedSet:
    """Loads the splits of a data set and looks at its columns and classes; no image is read.

    Args:
        settings (`TransferSet`): What the suite says of it.

    Raises:
        OutOfReach: when it cannot be loaded.
        HfChainError: when a column is missing or not found, or classes disagree.
    """
    where = f"datasets.{settings.name}"
    named = {} if settings.image_column is None else {"image_column": settings.image_column}
    data = _image_settings(settings, **named)
    try:
        splits = load_splits(data, only=["train", "validation"] if settings.trains else ["validation"])
    except HfChainError as error:
        raise OutOfReach(str(error)) from error.__cause__
    test, train = splits["validation"], splits.get("train")
    image, label = _image_column(where, settings, test), _label_column(where, settings, test)
    for split, rows in ((settings.train_split, train), (settings.split, test)):
        for column in (image, label):
            if rows is not None and column not in rows.column_names:
                raise HfChainError(f"{where}: split {split!r} has no column {column!r}, but {_listed(rows)}")
    names = _class_names(where, settings, label, test, train)
    if settings.templates and isinstance(settings.templates, str) and settings.templates.endswith(TEXT_FILE):
        # Other projects write the place of the name otherwise.
        templates = [line.replace("{c}", "{}") for line in _lines(settings, settings.templates)]
    else:
        templates = list(resolve_templates(settings.templates))
    try:
        return LoadedSet(settings, test, train, image, label, names, tuple(checked_templates(templates)))
    except ValueError as error:
        raise HfChainError(f"{where}: {settings.templates} of {settings.source}: {error}") from error


def _image_settings(settings: TransferSet, **columns: str) -> ImageSettings:
    return ImageSettings(
        source=settings.source,
        config_name=settings.config_name,
        data_files=settings.data_files,
        scenes=settings.scenes,
        train_split=settings.train_split,
        validation_split=settings.split,
        test_splits=[],
        augmentation=settings.fine_tune.augmentation,
        **columns,
    )


def _image_column(where: str, settings: TransferSet, rows: Dataset) -> str:
    if settings.image_column is not None:
        return settings.image_column
    found = [name for name, feature in rows.features.items() if isinstance(feature, Image)]
    if len(found) != 1:
        what = (
            f"several columns of images, {', '.join(found)}" if found else f"no column of images, but {_listed(rows)}"
        )
        raise HfChainError(f"{where}: {settings.source} has {what}: set image_column")
    return found[0]


def _label_column(where: str, settings: TransferSet, rows: Dataset) -> str:
    if settings.label_column is not None:
        return settings.label_column
    found = [name for name, feature in rows.features.items() if isinstance(feature, ClassLabel)]
    found = found or [name for name in LABELS if name in rows.column_names][:1]
    if len(found) != 1:
        what = (
            f"several columns of classes, {', '.join(found)}"
            if found
            else f"no column of classes, but {_listed(rows)}"
        )
        raise HfChainError(f"{where}: {settings.source} has {what}: set label_column")
    return found[0]


def _class_names(
    where: str, settings: TransferSet, column: str, test: Dataset, train: Dataset | None
) -> list[tuple[str, ...]]:
    """The names of each class: those of the suite or of the data; of a text with commas the first counts."""
    reader = LabelReader(_image_settings(settings, label_column=column), test.features)
    own, given = reader.names_by_class, settings.class_names
    if train is not None and isinstance(train.features[column], ClassLabel) and own is not None:
        others = train.features[column].names
        if others != test.features[column].names:
            raise HfChainError(
                f"{where}: {column!r} has the {len(others)} classes {_some(others)} in split {settings.train_split!r} "
                f"and the {len(own)} classes {_some(test.features[column].names)} in split {settings.split!r}: give "
                "splits of the same classes"
            )
    if given is None:
        if own is not None:
            return [names[:1] for names in own]
        if "zero_shot" in settings.kind:
            raise HfChainError(f"{where}: column {column!r} holds numbers without names: give class_names")
        return [(f"class {number}",) for number in range(_classes(column, test, train))]
    listed = _lines(settings, given) if isinstance(given, str) else given
    names = [(one,) if isinstance(one, str) else tuple(one) for one in listed]
    has = len(own) if own is not None else _classes(column, test, train)
    if has > len(names) or own is not None and has < len(names):
        raise HfChainError(
            f"{where}: class_names has {len(names)} names and column {column!r} {has} classes: give one for each"
        )
    return names


def _classes(column: str, test: Dataset, train: Dataset | None) -> int:
    """Classes of numbers without names: up to the largest number; what is no number is refused row by row."""
    numbers = [value for rows in (test, train) if rows is not None for value in rows.unique(column)]
    return 1 + max((int(value) for value in numbers if isinstance(value, (int, float))), default=0)


def _lines(settings: TransferSet, file: str) -> list[str]:
    """The lines of a text file in the folder or the repository of the data."""
    from huggingface_hub import hf_hub_download

    folder = Path(settings.source).expanduser()
    try:
        path = folder / file if folder.is_dir() else Path(hf_hub_download(settings.source, file, repo_type="dataset"))
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except Exception as error:  # The Hub raises errors of its own.
        raise OutOfReach(f"{file} of {settings.source} cannot be read ({reason(error)})") from error
    return [line for line in lines if line]


def _listed(rows: Dataset) -> str:
    return ", ".join(map(repr, rows.column_names))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


@contextmanager
def without_hub(when: bool) -> Iterator[None]:
    """Reads what is in the local cache alone, where the Hub was found out of reach: asking it again takes minutes."""
    import datasets
    from huggingface_hub import constants

    places: tuple[Any, ...] = (datasets.config, constants) if when else ()
    before = [place.HF_HUB_OFFLINE for place in places]
    for place in places:
        place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value
