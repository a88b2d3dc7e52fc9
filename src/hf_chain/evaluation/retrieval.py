"""Image-text retrieval: recall at 1, 5 and 10 in both directions, with any number of captions for each image.

The same sentence may describe several images ("a red circle on blue"). Retrieval is therefore measured between images
and *distinct* captions: gallery and queries hold every text once, and a pair is correct when that text is one of the
image's captions. Without repeated captions this is the usual protocol of COCO and Flickr30k: image-to-text counts a
hit when any caption of the image is among the first K, and each caption is one text-to-image query. Ties count as
chance would have them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm

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
    for rank in range(depth):
        # The next place goes to one of the tied entries that are left, all of them wrong so far.
        drawn = (rank - above).clamp(min=0)
        share = ((wrong - drawn) / (wrong + right - drawn).clamp(min=1)).clamp(min=0)
        missed = torch.where(above > rank, missed, missed * share)
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
    for rank in range(depth):
        missed = missed * ((wrong - rank).clamp(min=0) / max(1, gallery - rank))
        chances.append((1 - missed).mean().item())
    return chances


RECALL_AT = (1, 5, 10)


class CaptionIndex:
    """The distinct captions of a data set and the images they belong to.

    Args:
        captions (`Sequence[Sequence[str]]`): The captions of each image; an image may have none.
    """

    def __init__(self, captions: Sequence[Sequence[str]]) -> None:
        numbers: dict[str, int] = {}
        pairs = [(i, numbers.setdefault(text, len(numbers))) for i, texts in enumerate(captions) for text in texts]
        self.texts = list(numbers)
        """Distinct captions in order of first appearance."""
        self.pairs = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
        """Image number and caption number of every pair, int64, shape `[P, 2]`."""


def retrieval_metrics(
    images: torch.Tensor, texts: torch.Tensor, pairs: torch.Tensor, chunk_size: int = 256
) -> dict[str, float]:
    """Recall of image-to-text and text-to-image retrieval.

    Args:
        images (`torch.Tensor`): Normalised image embeddings, shape `[N, D]`.
        texts (`torch.Tensor`): Normalised embeddings of the distinct captions, shape `[T, D]`.
        pairs (`torch.Tensor`): `CaptionIndex.pairs`, shape `[P, 2]`. An image without a caption is no query.
        chunk_size (`int`): Queries compared with the gallery at a time: 256 × 150,000 similarities take 150 MB.

    Returns:
        `dict[str, float]`: `image_to_text_r1`, `_r5`, `_r10`, `text_to_image_r1`, `_r5`, `_r10` in [0, 1].
    """
    to_text = _recall(images, texts, pairs.to(images.device), chunk_size)
    to_image = _recall(texts, images, pairs.flip(1).to(images.device), chunk_size)
    return {f"image_to_text_r{k}": value for k, value in to_text.items()} | {
        f"text_to_image_r{k}": value for k, value in to_image.items()
    }


def retrieval_chance(pairs: torch.Tensor, images: int, texts: int) -> tuple[dict[str, float], dict[str, int]]:
    """What a random order reaches in `retrieval_metrics`, and how many queries each figure is a mean of.

    Args:
        pairs (`torch.Tensor`): `CaptionIndex.pairs`, shape `[P, 2]`.
        images (`int`): Images N.
        texts (`int`): Distinct captions T.

    Returns:
        `tuple[dict[str, float], dict[str, int]]`: By metric the chance level in [0, 1], and the queries.
    """
    chance: dict[str, float] = {}
    queries: dict[str, int] = {}
    for way, column, gallery in (("image_to_text", 0, texts), ("text_to_image", 1, images)):
        right = pairs[:, column].unique(return_counts=True)[1]
        levels = chance_at(right, gallery, max(RECALL_AT))
        chance |= {f"{way}_r{k}": levels[k - 1] for k in RECALL_AT}
        queries |= {f"{way}_r{k}": len(right) for k in RECALL_AT}
    return chance, queries


def _recall(queries: torch.Tensor, gallery: torch.Tensor, pairs: torch.Tensor, chunk_size: int) -> dict[int, float]:
    """Recall by K of `queries` that stand in the first column of `pairs`."""
    pairs = pairs[pairs[:, 0].argsort(stable=True)]
    numbers, counts = pairs[:, 0].unique_consecutive(return_counts=True)
    answers = pairs[:, 1].split(counts.tolist())
    hits = []
    for start in tqdm(range(0, len(numbers), chunk_size), desc="Retrieval", leave=False):
        similarities = queries[numbers[start : start + chunk_size]] @ gallery.T
        correct = torch.zeros_like(similarities, dtype=torch.bool)
        for row, right in enumerate(answers[start : start + chunk_size]):
            correct[row, right] = True
        hits.append(hits_at(similarities, correct, max(RECALL_AT)))
    means = torch.cat(hits).mean(0)
    return {k: means[k - 1].item() for k in RECALL_AT}
