"""Losses of language models, a token at a time: logits may be the largest tensor of a training.

Beside the logits there is their gradient, in their own type; probabilities are taken to float32, or what is wider, a
part at a time, and again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

PART = 1 << 24
"""Logits that are widened at once."""


def next_token_losses(logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every token given those before it.

    Args:
        logits (`torch.Tensor` of shape `[B, L, V]`): the predictions.
        input_ids (`torch.Tensor` of shape `[B, L]`): the tokens, int64.

    Returns:
        `torch.Tensor`: shape `[B, L - 1]`, float32, in nats. Its mean is the loss of transformers' own models.
    """
    # The last position predicts nothing: its target is any, and its loss is left out, so that no logits are copied.
    targets = input_ids.roll(-1, dims=1).flatten()
    losses: torch.Tensor = _NextToken.apply(logits.flatten(0, 1), targets)
    return losses.view(input_ids.shape)[:, :-1]


def token_divergences(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL divergence of the student's predictions from the teacher's, at temperature 1.

    A student may know more words than its teacher: its predictions are compared over the words of both.

    Args:
        student (`torch.Tensor` of shape `[B, L, V]`): its logits.
        teacher (`torch.Tensor` of shape `[B, L, W]`): the teacher's, without gradient; `W` is at most `V`.

    Returns:
        `torch.Tensor`: shape `[B, L]`, float32, in nats.
    """
    found: torch.Tensor = _Divergence.apply(student.flatten(0, 1), teacher.flatten(0, 1))
    return found.view(student.shape[:2])


def _wide(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _parts(logits: torch.Tensor) -> Iterator[slice]:
    step = max(1, PART // logits.shape[1])
    return (slice(start, start + step) for start in range(0, len(logits), step))


class _NextToken(torch.autograd.Function):
    """Maps logits `[N, V]` and targets `[N]` to losses `[N]`."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        sums = torch.cat([_wide(logits[part]).logsumexp(-1) for part in _parts(logits)])
        ctx.save_for_backward(logits, targets, sums)
        return sums - _wide(logits.gather(-1, targets[:, None])[:, 0])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits, targets, sums = ctx.saved_tensors
        found = torch.empty_like(logits)
        for part in _parts(logits):
            own = (_wide(logits[part]) - sums[part, None]).exp_()
            own.scatter_add_(-1, targets[part, None], -torch.ones_like(sums[part, None]))
            found[part] = own.mul_(gradients[0][part, None])
        return found, None


class _Divergence(torch.autograd.Function):
    """Maps a student's logits `[N, V]` and a teacher's `[N, W]` to divergences `[N]`."""

    @staticmethod
    def forward(ctx: Any, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        words, divergences = teacher.shape[1], []
        for part in _parts(teacher):
            ours, theirs = _wide(student[part, :words]).log_softmax(-1), _wide(teacher[part]).log_softmax(-1)
            divergences.append((theirs.exp() * (theirs - ours)).sum(-1))
        ctx.save_for_backward(student, teacher)
        return torch.cat(divergences)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        student, teacher = ctx.saved_tensors
        words, found = teacher.shape[1], torch.zeros_like(student)
        for part in _parts(teacher):
            ours, theirs = _wide(student[part, :words]).softmax(-1), _wide(teacher[part]).softmax(-1)
            found[part, :words] = ours.sub_(theirs).mul_(gradients[0][part, None])
        return found, None
