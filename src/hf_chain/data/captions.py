"""Columns and captions of a source: checked by name, read from a caption column, or made from names of classes."""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
from collections.abc import Mapping, Sequence
from functools import cached_property
from random import Random
from typing import Any, TypeVar

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value
from transformers.utils import logging

from hf_chain.data.prompts import resolve_templates
from hf_chain.data.settings import DataSettings, ImageSettings
from hf_chain.errors import HfChainError, shortened

logger = logging.get_logger(__name__)


AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


def used_columns(settings: ImageSettings) -> list[str]:
    """Return the columns that training reads."""
    names = (getattr(settings, field) for field in settings.COLUMNS)
    return list(dict.fromkeys(name for name in names if name is not None))


def check_columns(dataset: Dataset | IterableDataset, settings: ImageSettings) -> None:
    """Raise `HfChainError` where a column of the settings is not in the source.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`): A split; of a stream without known features one
            row is read.
        settings (`ImageSettings`): Names of the columns.
    """
    available = dataset.column_names
    if available is None:
        available = list(next(iter(dataset), {}))
    for field in settings.COLUMNS:
        column = getattr(settings, field)
        if column is not None and column not in available:
            raise HfChainError(
                f"{field} {column!r} is not in {settings.source}; its columns are {', '.join(available)}: set {field}"
            )


def undecoded(dataset: AnyDataset, settings: ImageSettings) -> AnyDataset:
    """Return the used columns only, images as bytes or path.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`): A split.
        settings (`ImageSettings`): Names of the columns.

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


class LabelReader:
    """Finds the class number of a row.

    Args:
        settings (`ImageSettings`): Which column to read.
        features (`datasets.Features`, *optional*): Features of the source; a `ClassLabel` column brings its names.

    Raises:
        `HfChainError`: Where the label column holds what can be no class number.
    """

    _INSTEAD = ""
    """What else may be done with a column of names."""

    def __init__(self, settings: Any, features: Features | None = None) -> None:
        self.settings = settings
        self._feature = (features or {}).get(settings.label_column) if settings.label_column else None
        if self._feature is not None and not may_number_classes(self._feature):
            raise HfChainError(
                f"label_column {settings.label_column!r} holds {kind_of(self._feature)}, not one class number a row; "
                f"number the classes with Dataset.class_encode_column{self._INSTEAD}"
            )

    @cached_property
    def names_by_class(self) -> list[tuple[str, ...]] | None:
        """Names of each class as the settings or the `ClassLabel` feature give them."""
        if self.settings.class_names is not None:
            return [split_names(names) for names in self.settings.class_names]
        if isinstance(self._feature, ClassLabel):
            return [split_names(name.replace("_", " ")) for name in self._feature.names]
        return None

    def label(self, row: Mapping[str, Any]) -> int | None:
        """Return the class number of a row, or `None` where the source has no classes.

        Raises:
            `ValueError`: Where the row's label is missing or out of range.
        """
        column = self.settings.label_column
        if column is None:
            return None
        value = row[column]
        if isinstance(value, str) and isinstance(self._feature, ClassLabel) and value in self._feature.names:
            value = self._feature.str2int(value)
        return class_number(value, None if self.names_by_class is None else len(self.names_by_class))

    def check(self, row: Mapping[str, Any]) -> tuple[list[str], bool]:
        """Return what is wrong with a row beside its image, and whether it can be used all the same."""
        try:
            self.label(row)
        except ValueError as error:
            return [str(error)], False
        return [], True


class CaptionReader(LabelReader):
    """Finds all captions and the class number of a row.

    Args:
        settings (`DataSettings`): Which columns to read and how class names become captions.
        features (`datasets.Features`, *optional*): Features of the source; a `ClassLabel` column brings its names.

    Raises:
        `HfChainError`: Where captions are to be made of class names and there are none, or the label column holds what
            can be no class number.
    """

    _INSTEAD = ", or make captions of the names with class_names_column"

    def __init__(self, settings: DataSettings, features: Features | None = None) -> None:
        super().__init__(settings, features)
        self._made: dict[tuple[str, ...], list[str]] = {}
        if settings.caption_column is None and settings.class_names_column is None and self.names_by_class is None:
            raise HfChainError(
                f"column {settings.label_column!r} holds numbers without names; "
                "give class_names or class_names_column, or a caption_column"
            )

    def check(self, row: Mapping[str, Any]) -> tuple[list[str], bool]:
        """Return what is wrong with a row beside its image, and whether it can be used all the same."""
        problems, usable = super().check(row)
        if not usable:
            return problems, False
        captions, problems = self.captions(row)
        return problems, bool(captions)

    def captions(self, row: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """Return all usable captions of a row and what is wrong with the others.

        Args:
            row (`Mapping`): A row of the source.

        Returns:
            `tuple[list[str], list[str]]`: Captions, and problems such as `caption 2 is empty`.
        """
        settings = self.settings
        if settings.caption_column is not None:
            return caption_texts(row[settings.caption_column])
        try:
            names = self._class_names(row)
        except ValueError as error:
            return [], [str(error)]
        return self._prompts(names), [] if names else ["the class has no name"]

    def _class_names(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        column = self.settings.class_names_column
        if column is not None:
            return split_names(row[column])
        label = self.label(row)
        return self.names_by_class[label] if self.names_by_class is not None and label is not None else ()

    def _prompts(self, names: tuple[str, ...]) -> list[str]:
        if names not in self._made:
            used = used_names(names, self.settings)
            templates = resolve_templates(self.settings.prompt_templates)
            self._made[names] = list(dict.fromkeys(t.format(name) for name in used for t in templates))
        return self._made[names]


def class_number(value: Any, classes: int | None = None) -> int:
    """Return a label as the number of its class.

    Args:
        value (`int`, `float` or `bool`): What the label column holds; `False` and `True` are 0 and 1.
        classes (`int`, *optional*): How many classes there are.

    Raises:
        `ValueError`: Where it is no whole number, negative, or out of range.
    """
    number = value.item() if isinstance(value, np.generic) else value
    whole = isinstance(number, int) or (isinstance(number, float) and number.is_integer())
    if not whole or number < 0:
        raise ValueError(f"label {shortened(number)} is no class number")
    if classes is not None and number >= classes:
        raise ValueError(f"label {shortened(number)} is out of range for {classes} class names")
    return int(number)


def caption_texts(value: Any) -> tuple[list[str], list[str]]:
    """Return the usable captions that a cell holds and what is wrong with the others.

    Args:
        value (`str` or `Sequence[str]`): One caption or a list of them, which may be written as text: `["a", "b"]`.

    Returns:
        `tuple[list[str], list[str]]`: Captions, and problems such as `caption 2 is empty`.
    """
    value = _read_list(value)
    listed = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)
    values = list(value) if listed else [value]
    problems = ["there are no captions"] if not values else []
    usable = []
    for number, caption in enumerate(values):
        problem = _problem(caption)
        if problem is None:
            usable.append(caption.strip())
        else:
            problems.append(f"caption {number} {problem}")
    return usable, problems


def sample_captions(captions: Sequence[str], count: int, random: Random) -> list[str]:
    """Draw captions without repetition while there are enough of them.

    Args:
        captions (`Sequence[str]`): All captions of an image, at least one.
        count (`int`): Captions to draw.
        random (`random.Random`): Generator of this sample.

    Returns:
        `list[str]`: `count` captions; where there are fewer, all of them and then repetitions.
    """
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += random.sample(captions, min(count - len(drawn), len(captions)))
    return drawn


def split_names(names: Any) -> tuple[str, ...]:
    """Split the names of one class: a list, or one text such as `goldfish, Carassius auratus`."""
    names = _read_list(names)
    parts = names.split(",") if isinstance(names, str) else names if isinstance(names, Sequence) else []
    return tuple(part.strip() for part in parts if isinstance(part, str) and part.strip())


def used_names(names: tuple[str, ...], settings: DataSettings) -> tuple[str, ...]:
    """Of the names of a class those that captions are made of."""
    return names if settings.class_names_used == "all" else names[:1]


def class_names(dataset: Dataset | IterableDataset, settings: DataSettings) -> list[tuple[str, ...]]:
    """Return the names of every class, in the order of the class numbers, for zero-shot classification.

    With `class_names_used: first` that is one name each: a class is not judged by names no caption was made of.

    Args:
        dataset (`datasets.Dataset` or `datasets.IterableDataset`): A split; it is scanned once where the names stand
            in a column.
        settings (`DataSettings`): Which columns hold labels and names.

    Returns:
        `list[tuple[str, ...]]`: The names of each class that captions are made of, the usual one first.

    Raises:
        `HfChainError`: Where labels or names are missing, or a class occurs in no row.
    """
    if settings.label_column is None:
        raise HfChainError("label_column is empty; zero-shot classification needs the column of class numbers")
    features = dataset.features
    reader = CaptionReader(settings, features)
    if settings.class_names is not None or settings.class_names_column is None:
        if reader.names_by_class is None:
            raise HfChainError(
                f"column {settings.label_column!r} holds numbers without names; give class_names or class_names_column"
            )
        return _told_apart([used_names(names, settings) for names in reader.names_by_class])
    found: dict[int, tuple[str, ...]] = {}
    for row in dataset.select_columns([settings.label_column, settings.class_names_column]):
        try:
            label = reader.label(row)
        except ValueError:  # The check of the rows reports it.
            continue
        if label is not None and label not in found:
            found[label] = split_names(row[settings.class_names_column])
    size = max(len(reader.names_by_class or []), max(found, default=-1) + 1)
    fallback = dict(enumerate(reader.names_by_class or []))
    names = []
    for number in range(size):
        if not (known := found.get(number) or fallback.get(number)):
            raise HfChainError(f"class {number} has no name in this split; give class_names")
        names.append(known)
    return _told_apart([used_names(known, settings) for known in names])


def _told_apart(names: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    first: dict[str, int] = {}
    for number, name in ((number, name) for number, known in enumerate(names) for name in known):
        if (other := first.setdefault(name, number)) != number:
            logger.warning(
                f"classes {other} and {number} are both called {name!r}: zero-shot classification takes one for the "
                "other; give class_names"
            )
            break
    return names


def may_number_classes(feature: Any) -> bool:
    """Whether a column of this kind can hold class numbers; whether it does is seen row by row."""
    if isinstance(feature, ClassLabel):
        return True
    return isinstance(feature, Value) and feature.dtype.startswith(("int", "uint", "float", "bool", "null"))


def kind_of(feature: Any) -> str:
    """What a column holds, in a word or a few."""
    return str(getattr(feature, "dtype", None) or shortened(feature))


def _read_list(value: Any) -> Any:
    """A list that is written as text, in JSON or in Python, as tables without lists hold it; else the value itself."""
    if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
        for read in (json.loads, _python_list):
            try:
                found = read(value.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            return found if isinstance(found, list) else value
    return value


def _python_list(text: str) -> Any:
    found = ast.literal_eval(text)
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], str):
        # An array in a table of pandas has no commas, and Python would glue its texts.
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        return [ast.literal_eval(token.string) for token in tokens if token.type == tokenize.STRING]
    return found


def _problem(caption: Any) -> str | None:
    if isinstance(caption, str):
        return None if caption.strip() else "is empty"
    if isinstance(caption, float) and math.isnan(caption):
        return "is NaN"
    return "is None" if caption is None else f"is {type(caption).__name__}, not text"
