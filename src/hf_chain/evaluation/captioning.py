"""Captions against references by CIDEr-D.

Source: CIDEr: Consensus-based Image Description Evaluation (arXiv 1411.5726), section 3 and the D variant of section
5: clipped counts and a penalty on length.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any

from datasets import Dataset

from hf_chain.errors import HfChainError
from hf_chain.evaluation.generate import generate_answers

CAPTION_TOKENS = 48
"""Most tokens of a caption."""

_LONGEST = 4
_SIGMA = 6.0
_WORD = re.compile(r"\w+(?:['’]\w+)*")

Vector = dict[tuple[str, ...], float]


@dataclass(frozen=True)
class CaptionEvaluation:
    """What an evaluation of captions found.

    Args:
        metrics (`dict[str, float]`): `cider_d`, from 0 for nothing in common to 10 for the only reference itself
            (tables give it times 100), and `caption_words`, the mean length.
        captions (`list[str]`): The caption of each row.
        macs (`int`): Multiply-accumulate operations of all forwards.
    """

    metrics: dict[str, float]
    captions: list[str]
    macs: int


def evaluate_captions(
    model: Any,
    processor: Any,
    rows: Dataset | Sequence[Mapping[str, Any]],
    *,
    max_new_tokens: int = CAPTION_TOKENS,
    **options: Any,
) -> CaptionEvaluation:
    """Let a model describe every row, and compare with the row's response and further `answers`.

    Args:
        model (`PreTrainedModel`): A causal language model, or a `GraftedVLMForConditionalGeneration`.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): The processor saved with the model.
        rows (`datasets.Dataset` or `Sequence[Mapping]`): Chat rows.
        max_new_tokens (`int`): Most tokens of a caption.
        options: Those of `generate_answers`: `batch_size`, `device`, `bf16`.

    Returns:
        `CaptionEvaluation`: Metrics, the captions in the order of the rows, and the cost.

    Raises:
        HfChainError: when there are no rows, or a row cannot be asked.
    """
    references = [[row["messages"][-1]["content"], *row["answers"]] for row in _texts(rows)]
    if not references:
        raise HfChainError("The evaluation data has no rows: choose another split")
    generated = generate_answers(model, processor, rows, max_new_tokens=max_new_tokens, **options)
    scores = cider_d(generated.texts, references)
    metrics = {
        "cider_d": sum(scores) / len(scores),
        "caption_words": sum(len(caption_words(text)) for text in generated.texts) / len(scores),
    }
    return CaptionEvaluation(metrics, generated.texts, generated.macs)


def cider_d(captions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Score captions; how rare an n-gram is is counted over the references of all images.

    Args:
        captions (`Sequence[str]`): One for each image.
        references (`Sequence[Sequence[str]]`): One or more for each image.

    Returns:
        `list[float]`: A score in [0, 10] for each image. With a single image every n-gram is in all of them, and the
        score is 0.
    """
    told = [[_ngrams(reference) for reference in group] for group in references]
    images = Counter(ngram for group in told for ngram in {key for counts in group for key in counts})

    def vector(counts: Counter[tuple[str, ...]]) -> Vector:
        return {ngram: n * (log(len(told)) - log(max(1, images[ngram]))) for ngram, n in counts.items()}

    scores = []
    for caption, group in zip(captions, told, strict=True):
        counts = _ngrams(caption)
        own = vector(counts)
        similar = (_similarity(own, vector(other)) * _penalty(counts, other) for other in group)
        scores.append(10 * sum(similar) / len(group))
    return scores


def caption_words(text: str) -> list[str]:
    """Words in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def _ngrams(text: str) -> Counter[tuple[str, ...]]:
    words = caption_words(text)
    return Counter(
        tuple(words[start : start + n]) for n in range(1, _LONGEST + 1) for start in range(len(words) - n + 1)
    )


def _similarity(own: Vector, other: Vector) -> float:
    """Mean over n of the cosine of the TF-IDF vectors, the caption's clipped to the reference's."""
    total = 0.0
    for n in range(1, _LONGEST + 1):
        product = sum(min(value, other.get(key, 0)) * other.get(key, 0) for key, value in own.items() if len(key) == n)
        norms = [sqrt(sum(value**2 for key, value in vec.items() if len(key) == n)) for vec in (own, other)]
        total += product / (norms[0] * norms[1]) if norms[0] and norms[1] else 0.0
    return total / _LONGEST


def _penalty(own: Counter[tuple[str, ...]], other: Counter[tuple[str, ...]]) -> float:
    lengths = [sum(count for key, count in counts.items() if len(key) == 1) for counts in (own, other)]
    return exp(-((lengths[0] - lengths[1]) ** 2) / (2 * _SIGMA**2))


def _texts(rows: Dataset | Sequence[Mapping[str, Any]]) -> Any:
    return rows.select_columns(["messages", "answers"]) if isinstance(rows, Dataset) else rows
