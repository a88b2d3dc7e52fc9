"""Perplexity of a language model on held-out text, whole or with layers dropped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch.nn.functional import cross_entropy

from hf_chain.errors import HfChainError
from hf_chain.grafting.translator.truncated import Batch, evaluating, forward_inputs, real_tokens, without_layers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from hf_chain.grafting.ranges import LayerRange


def perplexity(model: PreTrainedModel, batches: Iterable[Batch], dropped: Sequence[LayerRange] = ()) -> float:
    """exp of the mean negative log-likelihood of the next token, padding left out.

    Args:
        model (`PreTrainedModel`): a language model.
        batches (`Iterable[Batch]`): text; with `labels` only tokens whose label is not −100 are predicted.
        dropped (`Sequence[LayerRange]`, *optional*): layers to leave out.

    Raises:
        HfChainError: when there is no token to predict.
    """
    total, tokens = 0.0, 0
    with evaluating(model), without_layers(model, dropped):
        for batch in batches:
            logits = model(**forward_inputs(model, batch), use_cache=False).logits[:, :-1]
            labels = next_tokens(batch).to(logits.device)
            loss = cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
            total += loss.item()
            tokens += int((labels != -100).sum())
    if not tokens:
        raise HfChainError("the held-out batches hold no token to predict: give sequences of two tokens or more")
    return math.exp(total / tokens)


def next_tokens(batch: Batch) -> torch.Tensor:
    """The token after each but the last, `[B, L − 1]`, −100 where it is not to be predicted."""
    labels = batch["labels"] if "labels" in batch else batch["input_ids"]
    return labels.masked_fill(~real_tokens(batch), -100)[:, 1:]
