"""Yes-or-no questions as POPE evaluates them: accuracy, precision, recall, F1 and the share of yes.

Source: Evaluating Object Hallucination in Large Vision-Language Models (arXiv 2305.10355), section 5.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


def parse_yes_no(text: str) -> bool | None:
    """Read an answer: what its first sentence says first, `yes` or one of `no` and `not`.

    POPE's own script takes everything without a negation for a yes. Here an answer that says neither is `None`, and
    wrong whatever was right, so that a model that does not answer earns nothing.
    """
    sentence = re.split(r"[.!?\n]", text.strip().lower(), maxsplit=1)[0]
    word = re.search(r"\b(yes|no|not)\b", sentence)
    return None if word is None else word[0] == "yes"


def yes_no_metrics(expected: Sequence[bool], given: Sequence[bool | None]) -> dict[str, float]:
    """Compare answers; yes is the positive class.

    Args:
        expected (`Sequence[bool]`): The right answers.
        given (`Sequence[bool | None]`): The model's; `None` where it said neither.

    Returns:
        `dict[str, float]`: `accuracy`, `precision`, `recall`, `f1` and `yes_share` in [0, 1]; a ratio without a case
        is 0.
    """
    pairs = list(zip(expected, given, strict=True))
    hits = sum(right and said is True for right, said in pairs)
    said_yes = sum(said is True for said in given)
    precision, recall = _share(hits, said_yes), _share(hits, sum(expected))
    return {
        "accuracy": _share(sum(right == said for right, said in pairs), len(pairs)),
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * precision * recall, precision + recall),
        "yes_share": _share(said_yes, len(pairs)),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
