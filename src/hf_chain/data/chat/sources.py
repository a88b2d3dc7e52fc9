"""Where conversations come from: sources, what is stored of them, and what a split holds in a few hashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset, Features, IterableDataset, LargeList, List, concatenate_datasets
from datasets import Image as ImageFeature
from torch.utils import data

from hf_chain.data.captions import CaptionReader, check_columns, class_names
from hf_chain.data.chat.encoder import ChatEncoder
from hf_chain.data.chat.llava import llava_files, load_llava
from hf_chain.data.chat.quality import check_row
from hf_chain.data.chat.question_makers import (
    CaptionQuestions,
    LabelQuestions,
    SceneQuestions,
    describe_lines,
    read_label,
)
from hf_chain.data.chat.questions import Asker, ask, confused_classes, popular_classes, similar_classes
from hf_chain.data.chat.rows import (
    FEATURES,
    RULES,
    check_columns_are_read,
    check_row_is_read,
    plain_messages,
    stored_images,
)
from hf_chain.data.chat.settings import ChatDataSettings
from hf_chain.data.fingerprint import Fingerprint, fingerprint_files, fingerprint_rows
from hf_chain.data.quality import RunningCount
from hf_chain.data.settings import DataSettings
from hf_chain.data.sources import load_splits, stream_files
from hf_chain.errors import HfChainError
from hf_chain.images import MAX_IMAGE_PIXELS

Rows: TypeAlias = Dataset | IterableDataset


def load_chat(settings: ChatDataSettings, seed: int = 0) -> dict[str, Rows]:
    """Load the splits of a chat source as rows of one schema, so that sources can be concatenated.

    Args:
        settings (`ChatDataSettings`): The source and the names of its splits.
        seed (`int`, *optional*, defaults to 0): Seed of the questions, of the training subset and of a stream's order.

    Returns:
        `dict[str, Dataset | IterableDataset]`: `train`, `validation` (unless switched off) and every test split, with
        the columns `messages`, `images`, `kind`, `answers` and `negatives`. Rows are not checked yet, see
        `check_chat` and `ChatStream`.

    Raises:
        `HfChainError`: Where the source, a split or a column cannot be found or read; the message is one line.
    """
    if settings.questions is not None:
        return _asked(settings, seed)
    files = llava_files(settings)
    if files is not None:
        return load_llava(settings, files, seed)
    stored = load_splits(stored_settings(settings), seed)
    return {role: uniform_rows(rows, settings) for role, rows in stored.items()}


def stored_settings(settings: ChatDataSettings) -> DataSettings:
    """Return what `load_splits` is asked for where the source holds conversations."""
    return DataSettings(
        source=settings.source,
        config_name=settings.config_name,
        data_files=settings.data_files,
        image_column=settings.images_column,
        caption_column=settings.messages_column,
        **settings.split_values(),
    )


def _asked(settings: ChatDataSettings, seed: int) -> dict[str, Rows]:
    if settings.questions == "captions" and settings.images is None:
        lines = DataSettings(
            source="text", data_files=settings.data_files, caption_column="text", **settings.split_values()
        )
        return {role: describe_lines(rows) for role, rows in load_splits(lines, seed).items()}
    about = settings.image_settings()
    splits = load_splits(about, seed)
    for rows in splits.values():
        check_columns(rows, about)
    asker = _asker(settings, about, splits["train"])
    return {
        role: ask(
            rows,
            asker,
            image_column=about.image_column,
            described=settings.described,
            training=role == "train",
            turns=settings.training_turns,
            key=f"{seed}/{role}",
        )
        for role, rows in splits.items()
    }


def _asker(settings: ChatDataSettings, about: DataSettings, train: Dataset) -> Asker:
    if settings.questions == "scenes":
        return SceneQuestions(settings.facts)
    if settings.questions == "captions":
        return CaptionQuestions(about)
    names = class_names(train, about.model_copy(update={"class_names_used": "all"}))
    classes, hard = len(names), settings.hard_negatives
    if classes < 2:
        raise HfChainError(f"{about.source} has {classes} class; questions need two or more")
    if settings.confusion_file is not None:
        adversarial = confused_classes(settings.confusion_file, classes, hard)
    else:
        adversarial = similar_classes(names, hard)
    reader = CaptionReader(about, train.features)
    labels = [read_label(reader, row) for row in train.select_columns([about.label_column])]
    rows = tuple(labels.count(number) for number in range(classes))
    return LabelQuestions(reader, tuple(names), rows, popular_classes(labels, classes, hard), adversarial)


_IMAGES = Features({"images": FEATURES["images"]})
_TEXTS = Features({name: feature for name, feature in FEATURES.items() if name != "images"})


def uniform_rows(rows: Dataset | IterableDataset, settings: ChatDataSettings) -> Dataset | IterableDataset:
    """Bring rows with `messages` and `images` to the columns of `FEATURES`.

    Image bytes are not copied where the column is a list of images already.

    Args:
        rows (`datasets.Dataset` or `datasets.IterableDataset`): One split.
        settings (`ChatDataSettings`): Names of the columns.

    Raises:
        `HfChainError`: Where the column of the messages is missing, or another column than that of the images looks
            like an image.
    """
    columns = rows.column_names or list(next(iter(rows), {}))
    if settings.messages_column not in columns:
        raise HfChainError(
            f"messages_column {settings.messages_column!r} is not in {settings.source}; its columns are "
            f"{', '.join(columns)}: set messages_column"
        )
    texts = _Texts(settings.messages_column)
    read = {settings.messages_column, settings.images_column, *_TEXTS}
    images = _Images(settings.images_column, str(_folder(settings)))
    feature = (rows.features or {}).get(settings.images_column)
    listed = isinstance(feature, List | LargeList) and isinstance(feature.feature, ImageFeature)
    if listed:
        rows = rows.cast_column(settings.images_column, FEATURES["images"])
    elif isinstance(feature, ImageFeature):
        rows = rows.cast_column(settings.images_column, ImageFeature(decode=False))
    check_columns_are_read(rows, read, settings.images_column, settings.source)
    if isinstance(rows, IterableDataset):
        both = _Both(texts, images, frozenset(read), settings.source)
        return rows.map(both, remove_columns=columns, features=FEATURES)
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
    rules: int = RULES

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        answers = row.get("answers")
        answers = answers if isinstance(answers, list) else [answers]
        return {
            "messages": plain_messages(row[self.column]),
            "kind": str(row.get("kind") or ""),
            "answers": [str(answer) for answer in answers if answer is not None],
            "negatives": str(row.get("negatives") or ""),
        }


@dataclass(frozen=True)
class _Images:
    column: str
    folder: str
    rules: int = RULES

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"images": stored_images(row.get(self.column), self.folder)}


@dataclass(frozen=True)
class _Both:
    texts: _Texts
    images: _Images
    read: frozenset[str]
    source: str

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        check_row_is_read(row, self.read, self.images.column, self.source)
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


def fingerprint_chat(rows: Dataset | IterableDataset, settings: ChatDataSettings, role: str) -> Fingerprint:
    """Fingerprint of a split of conversations.

    Args:
        rows (`datasets.Dataset` or `datasets.IterableDataset`): The split, as `load_chat` gives it.
        settings (`ChatDataSettings`): The source.
        role (`str`): `train`, `validation` or the name of a test split.

    Raises:
        `HfChainError`: Where a file is missing.
    """
    if isinstance(rows, Dataset):
        return fingerprint_rows(rows, "images", [column for column in FEATURES if column != "images"])
    split = {"train": settings.train_split, "validation": settings.validation_split or ""}.get(role, role)
    files = llava_files(settings)
    return fingerprint_files(stream_files(stored_settings(settings), split) if files is None else files[split])


class ChatStream(data.IterableDataset):
    """Chat rows of a stream; bad rows are counted, skipped, and stop the run past `max_bad_share`.

    Workers share the files of the stream. Processes are left to accelerate, which cuts every global batch in slices
    (with `dispatch_batches=False`), so that two processes see what one would.

    Args:
        rows (`datasets.IterableDataset`): One split of `load_chat`.
        encoder (`ChatEncoder`): The collator's.
        max_bad_share (`float`, *optional*, defaults to 0.01): Share of bad rows above which it stops.
        max_image_pixels (`int`, *optional*): Pixels above which an image is not read and its row is bad.
        report_file (`str` or `pathlib.Path`, *optional*): JSON lines file that bad rows are appended to.
    """

    def __init__(
        self,
        rows: IterableDataset,
        encoder: ChatEncoder,
        *,
        max_bad_share: float = 0.01,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
        report_file: str | Path | None = None,
    ) -> None:
        self.rows, self.encoder = rows, encoder
        self.max_bad_share, self.report_file = max_bad_share, report_file
        self.max_image_pixels = max_image_pixels
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of another epoch."""
        self.epoch = epoch
        self.rows.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands; rows waiting in a shuffle buffer are not part of it."""
        return {"epoch": self.epoch, "rows": self.rows.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.set_epoch(state["epoch"])
        self.rows.load_state_dict(state["rows"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        counted = RunningCount(self.max_bad_share, self.report_file)
        for row in self.rows:
            length, bad = check_row(counted.report.rows, row, self.encoder, self.max_image_pixels)
            counted.add(bad)
            if length:
                yield {**row, "length": length}
        counted.finish()
