"""The questions that a model is asked after a stage, and the pictures that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from hf_chain.data.chat.caption_questions import CAPTION_KIND
from hf_chain.evaluation.captioning import CAPTION_TOKENS, evaluate_captions
from hf_chain.evaluation.question_answering import Answered, evaluate_answers, spread
from hf_chain.stages.graft.recipe import AnswerSettings


@dataclass(frozen=True)
class Asked:
    """What a model said to the rows of a split.

    Args:
        metrics (`dict[str, float]`): Those of `evaluate_answers` where there are questions, those of
            `evaluate_captions` where there are pictures to describe.
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
            scored as captions, all others by exact match.
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
    """Most tokens of a caption: an answer may be one word, so a recipe can raise it, and not lower it."""
    return max(settings.max_new_tokens, CAPTION_TOKENS)


def _ask(model: Any, processor: Any, rows: Dataset, settings: AnswerSettings) -> Asked:
    captions = [number for number, kind in enumerate(rows["kind"]) if kind == CAPTION_KIND]
    if not captions:
        return _questions(model, processor, rows, settings)
    described = _captions(model, processor, rows.select(captions), settings)
    others = sorted(set(range(len(rows))) - set(captions))
    if not others:
        return described
    answered = _questions(model, processor, rows.select(others), settings)
    by_row = dict(zip([*others, *captions], [*answered.answers, *described.answers], strict=True))
    metrics = answered.metrics | described.metrics
    return Asked(metrics, [by_row[number] for number in range(len(rows))], answered.macs + described.macs)


def _questions(model: Any, processor: Any, rows: Dataset, settings: AnswerSettings) -> Asked:
    found = evaluate_answers(
        model, processor, rows, batch_size=settings.batch_size, max_new_tokens=settings.max_new_tokens
    )
    return Asked(found.metrics, found.answers, found.macs)


def _captions(model: Any, processor: Any, rows: Dataset, settings: AnswerSettings) -> Asked:
    found = evaluate_captions(
        model, processor, rows, batch_size=settings.batch_size, max_new_tokens=caption_tokens(settings)
    )
    answers = []
    for row, caption in zip(rows.remove_columns("images"), found.captions, strict=True):
        question, reference = (message["content"] for message in row["messages"][-2:])
        expected = (reference, *row["answers"])
        answers.append(Answered(question, expected, caption, None, row["kind"], row["negatives"]))
    return Asked(found.metrics, answers, found.macs)
