"""Examples: questions with their pictures, and what the model of every step answered."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.files import MANIFEST_NAME, first_difference
from hf_chain.methods.graft.record import GraftRecord, StageRecord

logger = logging.get_logger(__name__)

ANSWERS_NAME = "answers.json"
PLACEHOLDER = "<image>"
"""Stands for an image in a question, whatever the model's own token for it."""
SHOWN = 10
PICTURE_SIZE = 224
"""Pixels of the longer side of a picture."""


@dataclass(frozen=True)
class Example:
    """One question.

    Args:
        question (`str`): Without the placeholders of its images.
        expected (`tuple[str, ...]`): Answers that count as right, the reference first.
        kind (`str`): Kind of the question; may be empty.
        pictures (`tuple[Path, ...]`): Files of its images.
        answers (`Mapping[str, tuple[str, bool | None]]`): Step -> what its model answered, and whether that was right;
            `None` for a description, which is neither.
    """

    question: str
    expected: tuple[str, ...]
    kind: str
    pictures: tuple[Path, ...]
    answers: Mapping[str, tuple[str, bool | None]]


def pictures_folder(run_dir: Path, split: str) -> Path:
    """Where a run keeps the pictures of the questions of `split` that are shown. They are in no model's folder, as the
    data need not be the user's to publish.
    """
    return run_dir / "examples" / split.replace("/", "-")


def save_pictures(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes the images of rows, small, as `00-0.png`: row and image.

    Args:
        folder (`Path`): Folder that exists.
        rows (`Iterable[Mapping]`): Chat rows in the order in which they are asked.
    """
    from hf_chain.data.chat.rows import read_sample  # starts the datasets library

    for number, row in enumerate(rows):
        for place, image in enumerate(read_sample(row).images):
            image.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
            image.save(folder / f"{number:02d}-{place}.png")


def read_examples(graft: GraftRecord, split: str) -> list[Example]:
    """Questions of `split`, of as many kinds as there are, with the answers of every step that is done.

    Args:
        graft (`GraftRecord`): The run.
        split (`str`): Name of the evaluated data.

    Raises:
        HfChainError: when a file of answers is damaged.
    """
    run_dir = graft.family.run_dir
    found = {graft.step_title(step): answers for step in graft.steps if (answers := _answers(run_dir, step, split))}
    if not found:
        return []
    asked, *_ = found.values()
    pictures = _pictures(pictures_folder(run_dir, split))
    examples = []
    for number in _varied([row["kind"] for row in asked]):
        row = asked[number]
        examples.append(
            Example(
                question=row["question"].replace(PLACEHOLDER, "").strip(),
                expected=tuple(row["expected"]),
                kind=row["kind"],
                pictures=tuple(path for path in pictures if path.name.startswith(f"{number:02d}-")),
                answers={
                    title: (answers[number]["answer"], answers[number]["correct"])
                    for title, answers in found.items()
                    if number < len(answers) and answers[number]["question"] == row["question"]
                },
            )
        )
    return examples


def _pictures(folder: Path) -> list[Path]:
    if (folder / MANIFEST_NAME).exists() and (difference := first_difference(folder)):
        logger.warning(f"{folder} is damaged ({difference}): the report goes without these pictures; restore them")
        return []
    return sorted(folder.glob("*.png"))


def _answers(run_dir: Path, step: StageRecord, split: str) -> list[dict[str, Any]]:
    path = run_dir / step.record.folder / ANSWERS_NAME
    if not step.record.folder or not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8")).get(split, [])
        return [{name: row[name] for name in ("question", "expected", "answer", "correct", "kind")} for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HfChainError(f"The answers in {path} are damaged: remove the file to go on without them") from error


def _varied(kinds: list[str]) -> list[int]:
    """Numbers of the questions to show: the first of every kind, then the second of every kind, …; in their order."""
    seen: Counter[str] = Counter()
    turns = []
    for number, kind in enumerate(kinds):
        turns.append((seen[kind], number))
        seen[kind] += 1
    return sorted(number for _, number in sorted(turns)[:SHOWN])
