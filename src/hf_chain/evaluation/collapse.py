"""Whether embeddings and captions differ enough for a metric to mean anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from transformers.utils import logging

from hf_chain.errors import shortened

logger = logging.get_logger(__name__)

FEWEST = 8
"""With fewer samples it is no surprise that they are alike."""
SAME_SHARE = 0.9
LEAST_RANK = 2.5
CLOSEST = 0.999


def effective_rank(embeddings: torch.Tensor) -> float:
    """Number of directions that embeddings vary in: the exponential of the entropy of their covariance's spectrum.

    Roy and Vetterli, *The effective rank* (EUSIPCO 2007), on centred embeddings.

    Args:
        embeddings (`torch.Tensor`): Shape `[N, D]`.

    Returns:
        `float`: From 1 to D; 0 where all are equal.
    """
    centred = embeddings.double() - embeddings.double().mean(0)
    spectrum = torch.linalg.eigvalsh(centred.T @ centred).clamp(min=0)
    # Float32 embeddings that are equal differ by rounding.
    if spectrum.sum() <= 1e-12 * len(embeddings):
        return 0.0
    shares = spectrum / spectrum.sum()
    return torch.exp(-torch.special.xlogy(shares, shares).sum()).item()


def mean_cosine(embeddings: torch.Tensor) -> float:
    """Mean cosine of two different embeddings of unit length, `[N, D]`."""
    count = len(embeddings)
    return ((embeddings.double().sum(0).square().sum().item() - count) / (count * (count - 1))) if count > 1 else 1.0


def warn_if_collapsed(kind: str, embeddings: torch.Tensor) -> None:
    """Warns, with the figures, where embeddings lie in a few directions or all close together.

    Args:
        kind (`str`): `image` or `text`.
        embeddings (`torch.Tensor`): Normalised, shape `[N, D]`.
    """
    if len(embeddings) < FEWEST:
        return
    rank, cosine = effective_rank(embeddings), mean_cosine(embeddings)
    if rank < LEAST_RANK or cosine > CLOSEST:
        logger.warning(
            f"the {len(embeddings):,} {kind} embeddings have collapsed: effective rank {rank:.1f} of "
            f"{embeddings.shape[1]}, mean cosine {cosine:.4f}; the model tells few of them apart"
        )


def warn_if_alike(name: str, captions: Sequence[str]) -> None:
    """Warns, with the figure, where nearly all captions are one: nothing is learnt from them, and none is told apart.

    Args:
        name (`str`): Whose captions they are.
        captions (`Sequence[str]`): One or more for each image.
    """
    if len(captions) < FEWEST:
        return
    ((text, count),) = Counter(captions).most_common(1)
    if count >= SAME_SHARE * len(captions):
        logger.warning(
            f"{count:,} of {len(captions):,} captions of {name} are the same, {shortened(text)}: retrieval and "
            "training learn nothing from them; check the caption column"
        )
