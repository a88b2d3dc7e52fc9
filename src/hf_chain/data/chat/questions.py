"""From questions about an image to chat rows: all in one conversation for training, one a row for evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from datasets import Dataset, Image

from hf_chain.data.chat.rows import FEATURES, IMAGE_PLACEHOLDER
from hf_chain.data.randomness import sample_random

# Part of the cache key: raise it with every change of what is asked.
VERSION = 3


@dataclass(frozen=True)
class Turn:
    """A question with its answer.

    Args:
        question (`str`): What is asked.
        answer (`str`): The response that is trained.
        kind (`str`): What kind of question it is, for the evaluation.
        answers (`tuple[str, ...]`): Answers that count as right besides `answer`.
        negatives (`str`): How the thing was chosen that is asked about and is not there; empty elsewhere.
    """

    question: str
    answer: str
    kind: str
    answers: tuple[str, ...] = ()
    negatives: str = ""


class Asker(Protocol):
    """Makes questions about a row of images."""

    def turns(self, row: Mapping[str, Any], random: Random, training: bool) -> list[Turn]:
        """Return the questions about a row; none where it cannot be asked about."""
        ...

    def description(self, row: Mapping[str, Any], turns: Sequence[Turn], random: Random) -> str:
        """Describe the row's image in words that answer these questions."""
        ...


@dataclass(frozen=True)
class _RowMaker:
    """Turns a batch of image rows into chat rows; the random numbers of a row depend on its number."""

    asker: Asker
    image_column: str
    described: bool
    training: bool
    turns: int
    key: str

    def __call__(self, batch: Mapping[str, list[Any]], numbers: list[int]) -> dict[str, list[Any]]:
        out: dict[str, list[Any]] = {name: [] for name in FEATURES}
        for place, number in enumerate(numbers):
            row = {name: values[place] for name, values in batch.items()}
            for made in self._rows(row, sample_random("questions", 0, 0, f"{self.key}/{number}")):
                for name, value in made.items():
                    out[name].append(value)
        return out

    def _rows(self, row: Mapping[str, Any], random: Random) -> list[dict[str, Any]]:
        turns = self.asker.turns(row, random, self.training)
        if self.training:
            random.shuffle(turns)
        size = (self.turns or len(turns)) if self.training else 1
        # Without a question the row stays, empty, so that the scan for bad rows reports it.
        parts = [turns[start : start + size] for start in range(0, len(turns), size)] if turns else [[]]
        return [self._row(row, part, random) for part in parts]

    def _row(self, row: Mapping[str, Any], turns: list[Turn], random: Random) -> dict[str, Any]:
        context = IMAGE_PLACEHOLDER
        if self.described and turns:
            context = self.asker.description(row, turns, random)
        messages = []
        for number, turn in enumerate(turns):
            question = turn.question if number else f"{context}\n{turn.question}"
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": turn.answer})
        kinds = {turn.kind for turn in turns}
        return {
            "messages": messages,
            "images": [] if self.described else [row[self.image_column]],
            "kind": kinds.pop() if len(kinds) == 1 else "",
            "answers": list(turns[-1].answers) if turns else [],
            "negatives": turns[-1].negatives if turns else "",
        }


def ask(
    rows: Dataset, asker: Asker, *, image_column: str, described: bool, training: bool, turns: int, key: str
) -> Dataset:
    """Ask about every row.

    Args:
        rows (`datasets.Dataset`): Images with what is known about them.
        asker (`Asker`): Makes the questions.
        image_column (`str`): Column of the images.
        described (`bool`): Describe the image in words in place of showing it.
        training (`bool`): Make conversations of several questions; otherwise each question is a row.
        turns (`int`): Questions of a training conversation; 0 for all about one image.
        key (`str`): Seeds the questions, with the number of the row.

    Returns:
        `datasets.Dataset`: Chat rows as `FEATURES` describes them.
    """
    unread = rows.remove_columns(image_column) if described else rows.cast_column(image_column, Image(decode=False))
    maker = _RowMaker(asker, image_column, described, training, turns, key)
    state = f"{VERSION} {unread._fingerprint} {maker!r}"
    return unread.map(
        maker,
        batched=True,
        batch_size=100,
        with_indices=True,
        remove_columns=unread.column_names,
        features=FEATURES,
        new_fingerprint=hashlib.blake2b(state.encode(), digest_size=16).hexdigest(),
        desc="Asking questions",
    )
