"""Question answering: exact match by kind of question, and yes-or-no questions as POPE does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from datasets import Dataset

from hf_chain.errors import HfChainError
from hf_chain.evaluation.forced import forced_answers
from hf_chain.evaluation.generate import generate_answers

_ARTICLES = ("a", "an", "the")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)}


@dataclass(frozen=True)
class Answered:
    """One question with the answers that count as right, what the model said, and whether that was right.

    `kind` and `negatives` are those of the row. Descriptions are neither right nor wrong: their `correct` is `None`.
    """

    question: str
    expected: tuple[str, ...]
    answer: str
    correct: bool | None
    kind: str
    negatives: str


@dataclass(frozen=True)
class AnswerEvaluation:
    """What an evaluation of answers found.

    Args:
        metrics (`dict[str, float]`): Metric name to value in [0, 1].
        answers (`list[Answered]`): Every question, in the order of the rows.
        prompt_tokens (`int`): Tokens of all prompts, image positions included.
        new_tokens (`int`): Tokens of all answers.
        images (`int`): Images that were looked at.
        macs (`int`): Multiply-accumulate operations of all forwards.
    """

    metrics: dict[str, float]
    answers: list[Answered]
    prompt_tokens: int
    new_tokens: int
    images: int
    macs: int


def evaluate_answers(
    model: Any,
    processor: Any,
    rows: Dataset,
    *,
    batch_size: int = 32,
    max_new_tokens: int = 16,
    max_samples: int | None = None,
    generate: bool = True,
    device: torch.device | str | None = None,
    bf16: bool = False,
) -> AnswerEvaluation:
    """Asks a model the last question of every row.

    Args:
        model (`PreTrainedModel`): A causal language model, or a `GraftedVLMForConditionalGeneration`.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): The processor saved with the model.
        rows (`datasets.Dataset`): Chat rows; the last response and `answers` are what counts as right.
        batch_size (`int`): Rows in one forward.
        max_new_tokens (`int`): Most tokens of an answer.
        max_samples (`int`, *optional*): Evaluate this many rows, spread evenly over the data.
        generate (`bool`): Generate answers; otherwise read them off one forward over question and response, see
            `forced_answers`: faster, but an answer that is right in other words than the reference's counts as wrong.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.

    Returns:
        `AnswerEvaluation`: `exact_match` and `exact_match_<kind>`; where there are yes-or-no questions
        `yes_no_accuracy`, `_precision`, `_recall`, `_f1` and `_yes_share`, and with negatives of several kinds also
        `yes_no_<negatives>_accuracy` …: the questions with these negatives and those of the same kind whose answer is
        yes. The overall numbers are then the means over the kinds of negatives, as in POPE.

    Raises:
        HfChainError: when there are no rows, or a row cannot be asked.
    """
    rows = spread(rows, max_samples)
    if not len(rows):
        raise HfChainError("The evaluation data has no rows: choose another split")
    options: dict[str, Any] = {"batch_size": batch_size, "device": device, "bf16": bf16}
    if generate:
        given = generate_answers(model, processor, rows, max_new_tokens=max_new_tokens, **options)
    else:
        given = forced_answers(model, processor, rows, **options)
    texts = rows.remove_columns("images") if "images" in rows.column_names else rows
    answers = [_judged(row, answer) for row, answer in zip(texts, given.texts, strict=True)]
    metrics = answer_metrics(answers)
    return AnswerEvaluation(metrics, answers, given.prompt_tokens, given.new_tokens, given.images, given.macs)


def spread(rows: Dataset, samples: int | None) -> Dataset:
    """The rows that are asked: `samples` of them, spread evenly over the data, or all; the same ones each time.

    One is drawn from each of as many stretches: steps of one length would meet the same kind of question every time
    where the kinds take turns.
    """
    if samples is None or samples >= len(rows):
        return rows
    starts = [number * len(rows) // samples for number in range(samples + 1)]
    random = Random(samples)
    return rows.select([random.randrange(start, end) for start, end in zip(starts, starts[1:], strict=False)])


def answer_metrics(answers: Sequence[Answered]) -> dict[str, float]:
    """Sums up answered questions; see `evaluate_answers`."""
    metrics = {"exact_match": _mean([bool(one.correct) for one in answers])}
    for kind in sorted({one.kind for one in answers if one.kind}):
        metrics[f"exact_match_{kind}"] = _mean([bool(one.correct) for one in answers if one.kind == kind])
    asked = [one for one in answers if normalise_answer(one.expected[0]) in ("yes", "no")]
    if not asked:
        return metrics
    ways = sorted({one.negatives for one in asked if one.negatives})
    parts = {way: _yes_no(_with_negatives(asked, way)) for way in ways}
    metrics |= {f"yes_no_{way}_{name}": value for way, part in parts.items() for name, value in part.items()}
    overall = _yes_no(asked)
    if parts:
        overall = {name: _mean([part[name] for part in parts.values()]) for name in overall}
    return metrics | {f"yes_no_{name}": value for name, value in overall.items()}


def normalise_answer(text: str) -> str:
    """Lower case, digits for number words, without punctuation, and without articles where another word is left.

    Follows the evaluation of VQA (arXiv 1505.00468, section 3, and its script), which knows no answer *A*.
    """
    words = re.sub(r"[^\w\s'-]", " ", text.lower()).split()
    kept = [word for word in words if word not in _ARTICLES] or words
    return " ".join(_DIGITS.get(word, word) for word in kept)


def _judged(row: Mapping[str, Any], answer: str) -> Answered:
    expected = (row["messages"][-1]["content"], *row["answers"])
    correct = normalise_answer(answer) in {normalise_answer(right) for right in expected}
    return Answered(row["messages"][-2]["content"], expected, answer, correct, row["kind"], row["negatives"])


def _with_negatives(asked: Sequence[Answered], way: str) -> list[Answered]:
    """Questions about what is not there, chosen in one way, and those of the same kind about what is there."""
    kinds = {one.kind for one in asked if one.negatives == way}
    return [one for one in asked if one.negatives == way or (one.kind in kinds and parse_yes_no(one.expected[0]))]


def _yes_no(asked: Sequence[Answered]) -> dict[str, float]:
    expected = [bool(parse_yes_no(one.expected[0])) for one in asked]
    return yes_no_metrics(expected, [parse_yes_no(one.answer) for one in asked])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


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
