"""Language-model loss on responses: a sum over tokens, to be divided by what the whole global batch weighs.

Source: Zero-Shot Vision Encoder Grafting via LLM Surrogates (arXiv 2505.22664), official code: the loss is on
responses alone, and may be re-weighted.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.functional import cross_entropy

IGNORED = -100
"""Label of tokens that are no response."""


def response_targets(batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What each position has to predict, and how much that counts.

    Args:
        batch (`dict`): `labels` `[B, L]`, the tokens at their own positions, −100 where they are no response; with
            `loss_weights` `[B, L]` they count by weight; with `position_ids` `[B, L]` of packed sequences no sequence
            predicts the first token of the next.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: next tokens `[B, L - 1]`, int64, and weights `[B, L - 1]`, float32, which
        are 0 where the next token is −100.
    """
    targets = batch["labels"][:, 1:]
    if "position_ids" in batch:
        targets = targets.masked_fill(batch["position_ids"][:, 1:] == 0, IGNORED)
    weights = (targets != IGNORED).float()
    if "loss_weights" in batch:
        weights = weights * batch["loss_weights"][:, 1:]
    return targets, weights


def response_loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sum of the cross-entropy of the response tokens.

    Divided by the sum of the weights over all micro-batches and processes, it is their mean over response tokens,
    however they are spread. Only positions with a target are taken to float32.

    Args:
        logits (`torch.Tensor` of shape `[B, L, V]`): the predictions.
        targets (`torch.Tensor` of shape `[B, L - 1]`): next tokens, −100 where there is nothing to predict.
        weights (`torch.Tensor` of shape `[B, L - 1]`): how much each counts.

    Returns:
        `torch.Tensor`: a scalar, float32, in nats.
    """
    counted = targets != IGNORED
    losses = cross_entropy(logits[:, :-1][counted].float(), targets[counted], reduction="none")
    return (losses * weights[counted]).sum()
