"""What the questions of an evaluation will cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean
from typing import Any

from datasets import Dataset

from hf_chain.data.chat.caption_questions import CAPTION_KIND
from hf_chain.evaluation.answer_cost import answer_macs, image_macs
from hf_chain.stages.graft.asking import caption_tokens
from hf_chain.stages.graft.lengths import Lengths
from hf_chain.stages.graft.recipe import AnswerSettings


@dataclass(frozen=True)
class AskedLengths:
    """Rows of a split that are asked in the same way.

    Attributes:
        asked (`int`): how many of them.
        lengths (`Lengths`): how long they are.
        captions (`bool`): whether they ask for descriptions.
    """

    asked: int
    lengths: Lengths
    captions: bool

    def macs(self, model: Any, settings: AnswerSettings) -> float:
        """Counts what a model takes to answer them, a description being as long as a reference.

        Args:
            model (`PreTrainedModel`): a grafted model, without weights.
            settings (`AnswerSettings`): how it is asked.
        """
        images = image_macs(model, round(mean(self.lengths.images)))
        if not self.captions:
            tokens, answer = (round(mean(values)) for values in (self.lengths.tokens, self.lengths.answers))
            return self.asked * (answer_macs(model, tokens, answer) + images)
        return self.asked * (_caption_macs(model, self.lengths, settings) + images)


def asked_lengths(
    rows: Dataset, settings: AnswerSettings, measure: Callable[[Dataset], Lengths]
) -> Iterator[AskedLengths]:
    """Measures the questions of a split, and its pictures to describe.

    Args:
        rows (`Dataset`): the split.
        settings (`AnswerSettings`): how many of its rows are asked.
        measure (`Callable[[Dataset], Lengths]`): measures rows.
    """
    captions = [number for number, kind in enumerate(rows["kind"]) if kind == CAPTION_KIND]
    share = min(len(rows), settings.max_samples or len(rows)) / max(1, len(rows))
    if not captions or len(captions) == len(rows):
        yield AskedLengths(round(share * len(rows)), measure(rows), bool(captions))
        return
    others = sorted(set(range(len(rows))) - set(captions))
    for numbers, captioned in ((others, False), (captions, True)):
        yield AskedLengths(round(share * len(numbers)), measure(rows.select(numbers)), captioned)


def _caption_macs(model: Any, lengths: Lengths, settings: AnswerSettings) -> float:
    """Of a caption, in the mean: a batch is generated up to its longest one, and captions differ in length."""
    most, size = caption_tokens(settings), settings.batch_size
    total = 0
    for start in range(0, len(lengths.tokens), size):
        tokens, answers = lengths.tokens[start : start + size], lengths.answers[start : start + size]
        prompt = max(whole - answer for whole, answer in zip(tokens, answers, strict=True))
        steps = min(most, max(answers))
        total += len(tokens) * answer_macs(model, prompt + steps, steps)
    return total / len(lengths.tokens)
