"""The questions that a model is asked after a stage, and the pictures that it describes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

from datasets import Dataset

from hf_chain.data.chat.question_makers import CAPTION_KIND
from hf_chain.evaluation import find_evaluator
from hf_chain.evaluation.captioning import CAPTION_TOKENS
from hf_chain.evaluation.free_answers import LOSS_ROWS
from hf_chain.evaluation.generate import answer_macs, image_macs
from hf_chain.evaluation.question_answering import Answered, answer_metrics, spread
from hf_chain.methods.graft.lengths import Lengths
from hf_chain.methods.graft.recipe import AnswerSettings

Way = Literal["question", "free", "caption"]
"""How answers are judged: by exact match; by the loss of the reference as well; or as captions."""


@dataclass(frozen=True)
class Asked:
    """What a model said to the rows of a split.

    Args:
        metrics (`dict[str, float]`): Those of `evaluate_answers` where there are questions, of `evaluate_free_answers`
            where there are conversations, of `evaluate_captions` where there are pictures to describe.
        answers (`list[Answered]`): Every row that was asked, in their order.
        macs (`int`): Multiply-accumulate operations of all forwards.
    """

    metrics: dict[str, float]
    answers: list[Answered]
    macs: int


def ask(model: Any, processor: Any, questions: Mapping[str, Dataset], settings: AnswerSettings) -> dict[str, Asked]:
    """Asks a model the questions of every split, as the recipe says.

    Args:
        model (`PreTrainedModel`): a language model, or a grafted one.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): what was saved with it.
        questions (`Mapping[str, Dataset]`): name of a split to its chat rows; rows of the kind `CAPTION_KIND` are
            scored as captions, those of another kind by exact match, and those of none as free answers.
        settings (`AnswerSettings`): how many are asked, and how.

    Returns:
        `dict[str, Asked]`: by split.

    Raises:
        HfChainError: when a split has no rows, or a row cannot be asked.
    """
    return {
        split: _ask(model, processor, spread(rows, settings.max_samples), settings)
        for split, rows in questions.items()
    }


def caption_tokens(settings: AnswerSettings) -> int:
    """Most tokens of a caption or a free answer: an answer may be one word, so a recipe can raise it, and not lower
    it.
    """
    return max(settings.max_new_tokens, CAPTION_TOKENS)


def way_of(kind: str) -> Way:
    """How rows of a kind are judged."""
    return "caption" if kind == CAPTION_KIND else "question" if kind else "free"


def by_way(rows: Dataset) -> dict[Way, list[int]]:
    """Numbers of the rows that are judged in each way."""
    found: dict[Way, list[int]] = {}
    for number, kind in enumerate(rows["kind"]):
        found.setdefault(way_of(kind), []).append(number)
    return found


def _ask(model: Any, processor: Any, rows: Dataset, settings: AnswerSettings) -> Asked:
    metrics: dict[str, float] = {}
    answers: dict[int, Answered] = {}
    macs = 0
    for way, numbers in by_way(rows).items():
        part = rows if len(numbers) == len(rows) else rows.select(numbers)
        most = settings.max_new_tokens if way == "question" else caption_tokens(settings)
        found = find_evaluator(way)(model, processor, part, batch_size=settings.batch_size, max_new_tokens=most)
        said = _described(part, found.captions) if way == "caption" else found.answers
        metrics |= found.metrics
        answers |= dict(zip(numbers, said, strict=True))
        macs += found.macs
    ordered = [answers[number] for number in range(len(rows))]
    judged = [one for one in ordered if way_of(one.kind) != "caption"]
    return Asked(metrics | (answer_metrics(judged) if judged else {}), ordered, macs)


def _described(rows: Dataset, captions: Sequence[str]) -> Iterator[Answered]:
    """Captions as answers to what was asked of the pictures."""
    for row, caption in zip(rows.remove_columns("images"), captions, strict=True):
        question, reference = (message["content"] for message in row["messages"][-2:])
        yield Answered(question, (reference, *row["answers"]), caption, None, row["kind"], row["negatives"])


@dataclass(frozen=True)
class AskedLengths:
    """Rows of a split that are asked in the same way.

    Attributes:
        asked (`int`): how many of them.
        lengths (`Lengths`): how long they are.
        way (`str`): how their answers are judged.
    """

    asked: int
    lengths: Lengths
    way: Way

    def macs(self, model: Any, settings: AnswerSettings) -> float:
        """Counts what a model takes to answer them, a free answer or a description being as long as a reference.

        Args:
            model (`PreTrainedModel`): a grafted model, without weights.
            settings (`AnswerSettings`): how it is asked.
        """
        images = image_macs(model, round(mean(self.lengths.images)))
        if self.way == "question":
            tokens, answer = (round(mean(values)) for values in (self.lengths.tokens, self.lengths.answers))
            return self.asked * (answer_macs(model, tokens, answer) + images)
        macs = _long_macs(model, self.lengths, settings.batch_size, caption_tokens(settings)) + images
        if self.way == "free":
            macs += _long_macs(model, self.lengths, min(settings.batch_size, LOSS_ROWS)) + images
        return self.asked * macs


def asked_lengths(
    rows: Dataset, settings: AnswerSettings, measure: Callable[[Dataset], Lengths]
) -> Iterator[AskedLengths]:
    """Measures the rows of a split that are asked in each way.

    Args:
        rows (`Dataset`): the split.
        settings (`AnswerSettings`): how many of its rows are asked.
        measure (`Callable[[Dataset], Lengths]`): measures rows.
    """
    share = min(len(rows), settings.max_samples or len(rows)) / max(1, len(rows))
    for way, numbers in by_way(rows).items():
        part = rows if len(numbers) == len(rows) else rows.select(numbers)
        yield AskedLengths(round(share * len(numbers)), measure(part), way)


def _long_macs(model: Any, lengths: Lengths, size: int, most: int | None = None) -> float:
    """Of a row, in the mean: a batch is as long as its longest one, and answers differ in length.

    Args:
        model (`PreTrainedModel`): a grafted model, without weights.
        lengths (`Lengths`): of the rows.
        size (`int`): rows in a batch.
        most (`int`, *optional*): tokens that an answer is cut at.
    """
    total = 0
    for start in range(0, len(lengths.tokens), size):
        tokens, answers = lengths.tokens[start : start + size], lengths.answers[start : start + size]
        prompt = max(whole - answer for whole, answer in zip(tokens, answers, strict=True))
        steps = min(most or max(answers), max(answers))
        total += len(tokens) * answer_macs(model, prompt + steps, steps)
    return total / len(lengths.tokens)
