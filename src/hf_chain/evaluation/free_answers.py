"""Free answers, such as the responses of LLaVA's conversations: how likely they are, and how close an answer comes.

Hardly any free answer is word for word the reference, so exact match stays at 0. The loss of the reference moves from
the first step on; CIDEr-D says how close an answer comes to a long one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from hf_chain.data.chat import ChatEncoder
from hf_chain.evaluation.captioning import caption_words, cider_d
from hf_chain.evaluation.forced import forced_logits
from hf_chain.evaluation.generate import Generated
from hf_chain.evaluation.question_answering import AnswerEvaluation, evaluate_answers

LONG_WORDS = 5
"""Words from which on a reference is long: nobody says it word for word."""
LOSS_ROWS = 16
"""Most rows in a forward of the loss: its logits are as many as response tokens times the vocabulary."""


@dataclass(frozen=True)
class ResponseLoss:
    """Cross-entropy of reference responses.

    Args:
        nats (`float`): Mean over the tokens of all last responses, end marks included; NaN where there are none.
        tokens (`int`): How many these are.
        macs (`int`): Multiply-accumulate operations of the forwards.
    """

    nats: float
    tokens: int
    macs: int


def response_loss(
    model: Any,
    processor: Any,
    rows: Dataset,
    *,
    batch_size: int = LOSS_ROWS,
    device: torch.device | str | None = None,
    bf16: bool = False,
) -> ResponseLoss:
    """How well a model predicts the last response of every row, in nats a token.

    Rows that end with a question, or whose response is cut off at `max_length`, are left out with a warning.

    Args:
        model (`PreTrainedModel`): A causal language model, or a `GraftedVLMForConditionalGeneration`.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): The processor saved with the model.
        rows (`datasets.Dataset`): Chat rows that end with a response.
        batch_size (`int`): Rows in one forward.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.
    """
    cost, total, tokens = Generated(), 0.0, 0
    for response, logits in forced_logits(
        model, ChatEncoder(processor), rows, cost, batch_size=batch_size, device=device, bf16=bf16, skip=True
    ):
        expected = torch.tensor(response, device=logits.device)
        total += float(cross_entropy(logits.float(), expected, reduction="sum"))
        tokens += len(response)
    return ResponseLoss(total / tokens if tokens else math.nan, tokens, cost.macs)


def evaluate_free_answers(
    model: Any, processor: Any, rows: Dataset, *, batch_size: int = 32, max_new_tokens: int = 48, **options: Any
) -> AnswerEvaluation:
    """Asks the last question of every row, and measures how likely its response is.

    Args:
        model (`PreTrainedModel`): A causal language model, or a `GraftedVLMForConditionalGeneration`.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`): The processor saved with the model.
        rows (`datasets.Dataset`): Chat rows that end with a response.
        batch_size (`int`): Rows in one forward.
        max_new_tokens (`int`): Most tokens of an answer.
        options: `device` and `bf16`, as of `evaluate_answers`.

    Returns:
        `AnswerEvaluation`: `exact_match`; `response_loss` in nats a token; and where the median reference has
        `LONG_WORDS` words or more, `response_cider_d`, see `cider_d`. Of an answer to a long reference that is not the
        reference, `correct` is `None`: it is neither right nor wrong.

    Raises:
        HfChainError: when there are no rows, or a row cannot be asked.
    """
    found = evaluate_answers(model, processor, rows, batch_size=batch_size, max_new_tokens=max_new_tokens, **options)
    loss = response_loss(model, processor, rows, batch_size=min(batch_size, LOSS_ROWS), **options)
    metrics = found.metrics | ({"response_loss": loss.nats} if loss.tokens else {})
    lengths = [len(caption_words(one.expected[0])) for one in found.answers]
    if median(lengths) >= LONG_WORDS:
        scores = cider_d([one.answer for one in found.answers], [one.expected for one in found.answers])
        metrics["response_cider_d"] = sum(scores) / len(scores)
    answers = [
        replace(one, correct=one.correct or None) if length >= LONG_WORDS else one
        for one, length in zip(found.answers, lengths, strict=True)
    ]
    return replace(found, metrics=metrics, answers=answers, macs=found.macs + loss.macs)
