"""The questions that a model is asked after a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from hf_chain.evaluation.question_answering import AnswerEvaluation, evaluate_answers
from hf_chain.stages.graft.recipe import AnswerSettings


def ask(
    model: Any, processor: Any, questions: Mapping[str, Dataset], settings: AnswerSettings
) -> dict[str, AnswerEvaluation]:
    """Asks a model the questions of every split, as the recipe says.

    Args:
        model (`PreTrainedModel`): a language model, or a grafted one.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): what was saved with it.
        questions (`Mapping[str, Dataset]`): name of a split to its chat rows.
        settings (`AnswerSettings`): how many are asked, and how.
    """
    return {
        split: evaluate_answers(
            model,
            processor,
            rows,
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            max_samples=settings.max_samples,
        )
        for split, rows in questions.items()
    }
