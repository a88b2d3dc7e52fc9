"""Which classes make hard negatives: frequent ones and those that are easily taken for each other."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from math import log
from pathlib import Path

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
