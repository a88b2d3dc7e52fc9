"""How often one of the right entries of a gallery is among the first K, where ties are broken by chance."""

from __future__ import annotations

import torch

TIE = 1e-6
"""Similarities of float32 unit vectors that differ by less are equal: rounding alone separates them."""


def hits_at(similarities: torch.Tensor, correct: torch.Tensor, depth: int) -> torch.Tensor:
    """Probability that a right entry is among the first 1, 2, …, `depth`.

    Entries that are equally similar stand in random order, so that a model that tells nothing apart is at the level of
    chance. Without ties it is 0 or 1.

    Args:
        similarities (`torch.Tensor`): Queries to gallery, shape `[Q, G]`.
        correct (`torch.Tensor`): Which entries are right, bool, shape `[Q, G]`, one or more in each row.
        depth (`int`): Largest K; beyond G every query hits.

    Returns:
        `torch.Tensor`: float64, shape `[Q, depth]`.
    """
    best = similarities.masked_fill(~correct, -torch.inf).amax(1, keepdim=True)
    tied = (similarities - best).abs() <= TIE
    above = (similarities > best + TIE).sum(1)
    right, wrong = (tied & correct).sum(1).double(), (tied & ~correct).sum(1).double()
    missed = torch.ones_like(right)
    hits = []
    for place in range(depth):
        # The next place goes to one of the tied entries that are left, all of them wrong so far.
        drawn = (place - above).clamp(min=0)
        share = ((wrong - drawn) / (wrong + right - drawn).clamp(min=1)).clamp(min=0)
        missed = torch.where(above > place, missed, missed * share)
        hits.append(1 - missed)
    return torch.stack(hits, 1)


def chance_at(right: torch.Tensor, gallery: int, depth: int) -> list[float]:
    """Mean probability that one of the right entries is among the first 1, 2, …, `depth` of a random order.

    Args:
        right (`torch.Tensor`): Right entries of each query, one or more, shape `[Q]`.
        gallery (`int`): Entries in the gallery.
        depth (`int`): Largest K; beyond the gallery every query hits.

    Returns:
        `list[float]`: One for each K.
    """
    missed, chances = torch.ones(len(right), dtype=torch.float64), []
    wrong = gallery - right.cpu().double()
    for place in range(depth):
        missed = missed * ((wrong - place).clamp(min=0) / max(1, gallery - place))
        chances.append((1 - missed).mean().item())
    return chances
