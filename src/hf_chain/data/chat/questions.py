"""From questions about an image to chat rows: all in one conversation for training, one a row for evaluation."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from random import Random
from typing import Any, Protocol

from datasets import Dataset, Image

from hf_chain.data.chat.rows import FEATURES, IMAGE_PLACEHOLDER
from hf_chain.data.randomness import sample_random
from hf_chain.errors import HfChainError, reason


def popular_classes(labels: Iterable[int | None], classes: int, count: int) -> tuple[int, ...]:
    """Return the most frequent classes; of equally frequent ones those spread evenly over the class numbers.

    Args:
        labels (`Iterable[int]`): Class numbers of the rows.
        classes (`int`): Number of classes.
        count (`int`): Classes to return.
    """
    rows, count = Counter(labels), min(count, classes)
    spread = [number * classes // count for number in range(count)]
    order = [*spread, *(number for number in range(classes) if number not in spread)]
    return tuple(sorted(order, key=lambda number: -rows[number])[:count])


def namesakes(names: Sequence[Sequence[str]]) -> list[set[int]]:
    """Return for each class those that share a name with it, whatever the case, itself among them.

    Args:
        names (`Sequence[Sequence[str]]`): All names of each class.
    """
    called: dict[str, set[int]] = {}
    for number, known in enumerate(names):
        for name in known:
            called.setdefault(name.casefold(), set()).add(number)
    return [{number}.union(*(called[name.casefold()] for name in known)) for number, known in enumerate(names)]


def similar_classes(names: Sequence[Sequence[str]], count: int) -> tuple[tuple[int, ...], ...]:
    """Return for each class those with the most similar names, and then its neighbours in number.

    Two classes are as similar as the words that their names share are rare: *Egyptian cat* and *Persian cat* share one
    that few have. Neighbours stand in for what is missing, as data sets made from WordNet number related classes next
    to each other (all frogs, then all snakes). Classes that share a whole name cannot be told apart by it and do not
    count.

    Args:
        names (`Sequence[Sequence[str]]`): All names of each class.
        count (`int`): Classes to return for each.
    """
    words = [{word.lower() for name in known for word in name.split()} for known in names]
    frequency = Counter(word for known in words for word in known)
    total, same = len(names), namesakes(names)

    def nearest(number: int) -> tuple[int, ...]:
        def rank(other: int) -> tuple[float, int, int]:
            shared = sorted(words[number] & words[other])
            return -sum(log(total / frequency[word]) for word in shared), abs(other - number), other

        return tuple(sorted((other for other in range(total) if other not in same[number]), key=rank)[:count])

    return tuple(nearest(number) for number in range(total))


def confused_classes(file: str | Path, classes: int, count: int) -> tuple[tuple[int, ...], ...]:
    """Return for each class those that a model most often predicts in its place.

    Args:
        file (`str` or `pathlib.Path`): JSON with the confusion matrix, `[true][predicted]`.
        classes (`int`): Number of classes.
        count (`int`): Classes to return for each.

    Raises:
        `HfChainError`: Where the file holds no square matrix of this size.
    """
    try:
        matrix = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HfChainError(f"confusion_file {file} cannot be read, {reason(error)}; give a JSON file") from error
    if (
        not isinstance(matrix, list)
        or [len(row) if isinstance(row, list) else 0 for row in matrix] != [classes] * classes
    ):
        raise HfChainError(
            f"confusion_file {file} holds no {classes} x {classes} matrix; give [true][predicted] counts"
        )
    ranked = [sorted(range(classes), key=[-times for times in row].__getitem__) for row in matrix]
    return tuple(tuple(other for other in order if other != number)[:count] for number, order in enumerate(ranked))


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
