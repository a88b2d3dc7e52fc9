"""Perplexity of a language model on held-out text, whole or with layers dropped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from hf_chain.errors import HfChainError
from hf_chain.grafting.batches import Batch, check_batches, forward_inputs, next_tokens
from hf_chain.grafting.translator.truncated import without_layers
from hf_chain.module_modes import evaluation_mode

LARGEST_LOSS = 700.0
"""Nats a token, beyond which there is no perplexity in float64."""

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_chain.grafting.ranges import LayerRange


class LossSum:
    """Negative log-likelihood of next tokens, added up batch by batch.

    Args:
        name (`str`): what the user calls the model.
    """

    def __init__(self, name: str) -> None:
        self.name, self.total, self.tokens = name, 0.0, 0

    def add(self, logits: torch.Tensor, batch: Batch) -> None:
        """Adds the real tokens of a batch, with `labels` only those whose label is not −100.

        Args:
            logits (`torch.Tensor` of shape `[B, L, V]`): the predictions.
            batch (`Batch`): the text.
        """
        labels = next_tokens(batch).to(logits.device)
        found = logits[:, :-1].float().flatten(0, 1)
        self.total += cross_entropy(found, labels.flatten(), ignore_index=-100, reduction="sum").item()
        self.tokens += int((labels != -100).sum())

    @property
    def perplexity(self) -> float:
        """exp of the mean.

        Raises:
            HfChainError: when there is no token to predict, or predictions are not finite.
        """
        if not self.tokens:
            raise HfChainError("the held-out batches hold no token to predict: give sequences of two tokens or more")
        if not self.total / self.tokens < LARGEST_LOSS:
            raise HfChainError(
                f"predictions of {self.name} are not finite: load it with dtype=torch.bfloat16 or torch.float32"
            )
        return math.exp(self.total / self.tokens)


def perplexity(model: PreTrainedModel, batches: Iterable[Batch], dropped: Sequence[LayerRange] = ()) -> float:
    """exp of the mean negative log-likelihood of the next token, padding left out.

    Args:
        model (`PreTrainedModel`): a language model, also one spread over devices or offloaded by `device_map`.
        batches (`Iterable[Batch]`): text; with `labels` only tokens whose label is not −100 are predicted.
        dropped (`Sequence[LayerRange]`, *optional*): layers to leave out.

    Returns:
        `float`: above 1.

    Raises:
        HfChainError: when there is no token to predict, or predictions are not finite.
    """
    check_batches(batches, "the held-out text", passes=1)
    losses = LossSum(name_of(model))
    with evaluation_mode(model), without_layers(model, dropped):
        for batch in batches:
            losses.add(model(**forward_inputs(model, batch), use_cache=False).logits, batch)
    return losses.perplexity


def name_of(model: PreTrainedModel) -> str:
    """What a user calls a model."""
    return model.name_or_path or type(model).__name__
