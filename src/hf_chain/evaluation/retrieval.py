"""Image-text retrieval: recall at 1, 5 and 10 in both directions, with any number of captions for each image.

The same sentence may describe several images ("a red circle on blue"). Retrieval is therefore measured between images
and *distinct* captions: gallery and queries hold every text once, and a pair is correct when that text is one of the
image's captions. Without repeated captions this is the usual protocol of COCO and Flickr30k: image-to-text counts a
hit when any caption of the image is among the first K, and each caption is one text-to-image query.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm

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


def _recall(queries: torch.Tensor, gallery: torch.Tensor, pairs: torch.Tensor, chunk_size: int) -> dict[int, float]:
    """Recall by K of `queries` that stand in the first column of `pairs`."""
    depth = min(max(RECALL_AT), len(gallery))
    numbers = pairs[:, 0].unique()
    correct = pairs[:, 0] * len(gallery) + pairs[:, 1]
    hits = []
    for chunk in tqdm(numbers.split(chunk_size), desc="Retrieval", leave=False):
        found = (queries[chunk] @ gallery.T).topk(depth).indices
        hits.append(torch.isin(chunk[:, None] * len(gallery) + found, correct))
    ranked = torch.cat(hits)
    return {k: ranked[:, :k].any(1).double().mean().item() for k in RECALL_AT}
