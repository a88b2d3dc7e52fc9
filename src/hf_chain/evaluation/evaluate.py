"""Evaluates one dual encoder on one split: every image is embedded once and used by all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel

from hf_chain.data.captions import caption_texts, class_number, with_stored_images
from hf_chain.errors import HfChainError
from hf_chain.evaluation.embed import Embedder, bad_row, warn_if_alike, warn_if_collapsed
from hf_chain.evaluation.retrieval import CaptionIndex, retrieval_chance, retrieval_metrics
from hf_chain.evaluation.zero_shot import (
    ClassName,
    check_evaluation,
    class_embeddings,
    class_labels,
    class_prompts,
    zero_shot_metrics,
)
from hf_chain.images import MAX_IMAGE_PIXELS
from hf_chain.module_modes import evaluation_mode

DEFAULT_TEMPLATES = ("a photo of a {}.",)
TOP = {"zero_shot_top1": 1, "zero_shot_top5": 5}


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        metrics (`dict[str, float]`): Metric name to value: a share in [0, 1] where `evaluation.metrics` says no other.
        per_class (`dict[str, float]`): Zero-shot top-1 accuracy by class, of the classes that have images.
        macs (`int`): Multiply-accumulate operations of all forwards.
        chance (`dict[str, float]`): Metric name to what a random order reaches.
        trials (`dict[str, int]`): Metric name to the images, captions or tokens it is a mean over.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)
    macs: int = 0
    chance: dict[str, float] = field(default_factory=dict)
    trials: dict[str, int] = field(default_factory=dict)


def evaluate_clip(
    model: PreTrainedModel,
    processor: Any,
    dataset: Dataset,
    *,
    image_column: str = "image",
    caption_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[ClassName] | None = None,
    prompt_templates: str | Sequence[str] = DEFAULT_TEMPLATES,
    batch_size: int = 256,
    max_samples: int | None = None,
    device: torch.device | str | None = None,
    bf16: bool = False,
    max_image_pixels: int | None = MAX_IMAGE_PIXELS,
    trained: bool = True,
) -> Evaluation:
    """Measures zero-shot classification and image-text retrieval of a dual encoder.

    Retrieval is measured when `caption_column` is given, classification when `label_column` and `class_names` are.
    Runs without gradients and leaves every module in the mode it was in.

    Args:
        model (`PreTrainedModel`): `CLIPModel`, `SiglipModel` or `VisionTextDualEncoderModel`.
        processor (`ProcessorMixin`): The processor saved with the model.
        dataset (`datasets.Dataset`): The split; its images are read as in training.
        image_column (`str`): Column of images.
        caption_column (`str`, *optional*): Column of captions, each a string or a list of strings.
        label_column (`str`, *optional*): Column of class numbers.
        class_names (`Sequence[str | Sequence[str]]`, *optional*): Name, or names, of each class.
        prompt_templates (`str` or `Sequence[str]`): Prompts with `{}` for the class name, ensembled.
        batch_size (`int`): Images or texts in one forward.
        max_samples (`int`, *optional*): Evaluate this many rows, spread evenly over the split.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.
        max_image_pixels (`int`, *optional*): Pixels above which an image is not read; `None` for any number.
        trained (`bool`): Whether to warn of embeddings that have collapsed; those of random weights often do.

    Returns:
        `Evaluation`: `zero_shot_top1`, `zero_shot_top5`, `image_to_text_r1` … `text_to_image_r10`, the accuracy by
        class and the cost.

    Raises:
        HfChainError: when an argument cannot be used, a column is missing, there is nothing to measure, the
            embeddings are not finite, or a row is one that `check_quality` leaves out: its image cannot be read, its
            label is no class, it has no caption.
    """
    if class_names is None or label_column is None:
        class_names = label_column = None
    check_evaluation(model, processor, dataset, class_names, prompt_templates, batch_size, max_samples)
    if isinstance(prompt_templates, str):
        prompt_templates = (prompt_templates,)
    require_columns(dataset, [image_column, caption_column, label_column])
    if label_column is None and caption_column is None:
        raise HfChainError("Nothing to evaluate: give caption_column, or label_column with class_names")
    rows = spread(len(dataset), max_samples)
    # Plain rows, whatever format the data set is set to.
    dataset = with_stored_images(dataset.with_format(None), image_column)
    device = torch.device(device if device is not None else model.device)
    embedder = Embedder(model, processor, batch_size, device, bf16)
    metrics: dict[str, float] = {}
    per_class: dict[str, float] = {}
    chance: dict[str, float] = {}
    trials: dict[str, int] = {}
    # Labels and captions are read before the forwards, so that what is wrong with them is known at once.
    labels = class_numbers(dataset, label_column, rows, len(class_names)) if label_column and class_names else None
    captions = _captions(dataset, caption_column, rows) if caption_column else None
    with evaluation_mode(model):
        images = embedder.images(dataset, image_column, rows, max_image_pixels)
        if trained:
            warn_if_collapsed("image", images)
        if labels is not None and class_names is not None:
            prompts = class_prompts(class_names, prompt_templates)
            embedded = embedder.texts([prompt for group in prompts for prompt in group])
            classes = class_embeddings(embedded.split([len(group) for group in prompts]))
            metrics, per_class = zero_shot_metrics(images, classes, labels.to(device), class_labels(class_names))
            chance = {name: min(1.0, k / len(classes)) for name, k in TOP.items()}
            trials = dict.fromkeys(TOP, len(rows))
        if captions is not None:
            texts = embedder.texts(captions.texts)
            if trained:
                warn_if_collapsed("text", texts)
            metrics |= retrieval_metrics(images, texts, captions.pairs)
            levels, queries = retrieval_chance(captions.pairs, len(images), len(texts))
            chance, trials = chance | levels, trials | queries
    return Evaluation(metrics, per_class, embedder.macs, chance, trials)


def evaluation_size(
    dataset: Dataset,
    *,
    caption_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[ClassName] | None = None,
    prompt_templates: Sequence[str] = DEFAULT_TEMPLATES,
    max_samples: int | None = None,
    **_: Any,
) -> tuple[int, int]:
    """Images and texts that `evaluate_clip`, called with the same arguments, embeds.

    Returns:
        `tuple[int, int]`: Images, and captions and class prompts.

    Raises:
        HfChainError: when a row has no caption.
    """
    rows = spread(len(dataset), max_samples)
    classes = class_names if label_column is not None else None
    prompts = sum(map(len, class_prompts(classes or [], prompt_templates)))
    captions = len(_captions(dataset, caption_column, rows).texts) if caption_column else 0
    return len(rows), prompts + captions


def require_columns(dataset: Dataset, columns: Sequence[str | None]) -> None:
    """Refuses data without rows or without one of these columns."""
    if not len(dataset):
        raise HfChainError("The evaluation data has no rows: choose another split")
    for column in columns:
        if column is not None and column not in dataset.column_names:
            raise HfChainError(
                f"The evaluation data has no column {column!r}: it has {', '.join(map(repr, dataset.column_names))}"
            )


def spread(count: int, max_samples: int | None) -> Sequence[int]:
    """At most `max_samples` row numbers at equal distances: data sorted by class still shows every class."""
    if max_samples is None or max_samples >= count:
        return range(count)
    return [i * count // max_samples for i in range(max_samples)]


def class_numbers(dataset: Dataset, column: str, rows: Sequence[int], classes: int) -> torch.Tensor:
    """Class numbers of rows, int64, shape `[len(rows)]`; a row that has none is an error that names it."""
    labels = []
    for row, label in zip(rows, dataset.select(rows)[column], strict=True):
        try:
            labels.append(class_number(label, classes))
        except ValueError as error:
            raise bad_row(row, str(error)) from error
    return torch.tensor(labels)


def _captions(dataset: Dataset, column: str, rows: Sequence[int]) -> CaptionIndex:
    """The captions of each row, without those that cannot be used."""
    captions = []
    for row, cell in zip(rows, dataset.select(rows)[column], strict=True):
        usable, problems = caption_texts(cell)
        if not usable:
            raise bad_row(row, ", ".join(problems))
        captions.append(usable)
    warn_if_alike("the evaluation data", [text for texts in captions for text in texts])
    return CaptionIndex(captions)
