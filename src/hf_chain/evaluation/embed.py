"""Embeddings of images and texts by a dual encoder, with the cost of computing them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from torch.nn.functional import normalize
from tqdm.auto import tqdm
from transformers.utils import logging

from hf_chain.cost import dual_encoder_macs
from hf_chain.errors import HfChainError, reason, shortened
from hf_chain.families import family_of
from hf_chain.images import MAX_IMAGE_PIXELS, decode_image, image_path

logger = logging.get_logger(__name__)


class Embedder:
    """Computes normalised float32 embeddings batch by batch and counts the MACs of the forwards.

    Args:
        model (`PreTrainedModel`): Has `get_image_features` and `get_text_features` as `CLIPModel` has, on `device`.
        processor (`ProcessorMixin`): Turns images and texts into the model's inputs.
        batch_size (`int`): Images or texts in one forward.
        device (`torch.device`): Where the model is.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.
    """

    def __init__(self, model: Any, processor: Any, batch_size: int, device: torch.device, bf16: bool) -> None:
        self.model, self.processor = model, processor
        self.batch_size, self.device, self.bf16 = batch_size, device, bf16
        # A BERT has places for longer texts than it was trained on, and a RoBERTa two that no token takes.
        positions = model.config.text_config.max_position_embeddings
        self.context_length = min(positions, processor.tokenizer.model_max_length)
        self.reads_padding = model.config.model_type != "chain_clip" and family_of(model.config).reads_padding
        self.macs = 0
        """Multiply-accumulate operations of all forwards so far."""

    def images(
        self, dataset: Dataset, column: str, rows: Sequence[int], max_pixels: int | None = MAX_IMAGE_PIXELS
    ) -> torch.Tensor:
        """Embeds the images in `column`, not decoded, of the given rows of `dataset`; shape `[len(rows), D]`.

        Raises:
            HfChainError: when an image cannot be read, naming its row.
        """
        macs = dual_encoder_macs(self.model.config).image
        batches = []
        for images in image_batches(dataset, column, rows, self.batch_size, max_pixels, "Embedding images"):
            inputs = self.processor(images=images, return_tensors="pt").to(self.device)
            batches.append(self._embed(self.model.get_image_features, inputs))
            self.macs += macs * len(images)
        return torch.cat(batches)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeds `texts`, truncated at the context length; shape `[len(texts), D]`."""
        batches = []
        padding = "max_length" if self.reads_padding else True
        for batch in in_batches(texts, self.batch_size, "Embedding texts"):
            inputs = self.processor(
                text=list(batch), return_tensors="pt", padding=padding, truncation=True, max_length=self.context_length
            ).to(self.device)
            if self.reads_padding:
                inputs.pop("attention_mask", None)
            batches.append(self._embed(self.model.get_text_features, inputs))
            tokens = inputs["input_ids"].shape[1]
            self.macs += dual_encoder_macs(self.model.config, text_tokens=tokens).text * len(batch)
        return torch.cat(batches)

    def _embed(self, features: Any, inputs: Any) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            output = features(**inputs)
        embeddings = output if isinstance(output, torch.Tensor) else output.pooler_output
        if not torch.isfinite(embeddings).all():
            raise HfChainError(
                "The model's embeddings are not finite: training diverged; lower learning_rate or raise warmup_steps"
            )
        return normalize(embeddings.float(), dim=-1)


def in_batches(items: Sequence[Any], size: int, description: str) -> Iterator[Sequence[Any]]:
    """Slices of at most `size` items, with a progress bar."""
    with tqdm(total=len(items), desc=description, leave=False) as progress:
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            yield batch
            progress.update(len(batch))


def image_batches(
    dataset: Dataset, column: str, rows: Sequence[int], size: int, max_pixels: int | None, description: str
) -> Iterator[list[Image.Image]]:
    """Images of rows, in batches; those of a batch are decoded side by side.

    Args:
        dataset (`datasets.Dataset`): The split, with its images not decoded.
        column (`str`): Column of images.
        rows (`Sequence[int]`): Numbers of the rows.
        size (`int`): Images in a batch, at most.
        max_pixels (`int`, *optional*): Pixels above which an image is not read.
        description (`str`): Of the progress bar.

    Raises:
        HfChainError: when an image cannot be read, naming its row.
    """
    dataset = dataset.select_columns([column])
    # Decoding releases the interpreter lock.
    with ThreadPoolExecutor() as readers:
        for numbers in in_batches(rows, size, description):
            yield list(readers.map(lambda row: _read_image(dataset, column, row, max_pixels), numbers))


def _read_image(dataset: Dataset, column: str, row: int, max_pixels: int | None) -> Image.Image:
    value = dataset[row][column]
    try:
        return decode_image(value, max_pixels)
    except Exception as error:  # Pillow's decoders raise errors of every kind.
        raise bad_row(row, f"image cannot be read, {reason(error)}", image_path(value)) from error


def bad_row(row: int, problem: str, path: str | None = None) -> HfChainError:
    """The error for a row that cannot be evaluated."""
    place = f"row {row}" + (f" ({path[:200]})" if path else "")
    return HfChainError(f"Evaluation data, {place}: {problem}; leave that row out, as check_quality does")


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
