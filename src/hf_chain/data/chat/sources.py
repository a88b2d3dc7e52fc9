"""Loading of chat rows from any source: conversations that exist, or questions made about images."""

from __future__ import annotations

from typing import TypeAlias

from datasets import Dataset, IterableDataset

from hf_chain.data.captions import CaptionReader, class_names
from hf_chain.data.chat.caption_questions import CaptionQuestions, describe_lines
from hf_chain.data.chat.label_questions import LabelQuestions, read_label
from hf_chain.data.chat.llava import llava_files, load_llava
from hf_chain.data.chat.negatives import confused_classes, popular_classes, similar_classes
from hf_chain.data.chat.questions import Asker, ask
from hf_chain.data.chat.scene_questions import SceneQuestions
from hf_chain.data.chat.settings import ChatDataSettings
from hf_chain.data.chat.stored import uniform_rows
from hf_chain.data.columns import check_columns
from hf_chain.data.settings import DataSettings
from hf_chain.data.sources import load_splits
from hf_chain.errors import HfChainError

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
    stored = DataSettings(
        source=settings.source,
        config_name=settings.config_name,
        data_files=settings.data_files,
        image_column=settings.images_column,
        caption_column=settings.messages_column,
        **settings.split_values(),
    )
    return {role: uniform_rows(rows, settings) for role, rows in load_splits(stored, seed).items()}


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
        return SceneQuestions()
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
