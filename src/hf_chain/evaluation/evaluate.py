"""Evaluates one dual encoder on one split: every image is embedded once and used by all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel

from hf_chain.errors import HfChainError
from hf_chain.evaluation.embed import Embedder
from hf_chain.evaluation.retrieval import CaptionIndex, retrieval_metrics
from hf_chain.evaluation.zero_shot import (
    ClassName,
    class_embeddings,
    class_labels,
    class_prompts,
    zero_shot_metrics,
)
from hf_chain.module_modes import evaluation_mode

DEFAULT_TEMPLATES = ("a photo of a {}.",)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        metrics (`dict[str, float]`): Metric name to value in [0, 1].
        per_class (`dict[str, float]`): Zero-shot top-1 accuracy by class, of the classes that have images.
        macs (`int`): Multiply-accumulate operations of all forwards.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)
    macs: int = 0


def evaluate_clip(
    model: PreTrainedModel,
    processor: Any,
    dataset: Dataset,
    *,
    image_column: str = "image",
    caption_column: str | None = None,
    label_column: str | None = None,
    class_names: Sequence[ClassName] | None = None,
    prompt_templates: Sequence[str] = DEFAULT_TEMPLATES,
    batch_size: int = 256,
    max_samples: int | None = None,
    device: torch.device | str | None = None,
    bf16: bool = False,
) -> Evaluation:
    """Measures zero-shot classification and image-text retrieval of a dual encoder.

    Retrieval is measured when `caption_column` is given, classification when `label_column` and `class_names` are.
    Runs without gradients and leaves every module in the mode it was in.

    Args:
        model (`PreTrainedModel`): `CLIPModel` or another with its `get_image_features` and `get_text_features`.
        processor (`ProcessorMixin`): The processor saved with the model.
        dataset (`datasets.Dataset`): The split, with an image column that decodes to PIL images.
        image_column (`str`): Column of images.
        caption_column (`str`, *optional*): Column of captions, each a string or a list of strings.
        label_column (`str`, *optional*): Column of class numbers.
        class_names (`Sequence[str | Sequence[str]]`, *optional*): Name, or names, of each class.
        prompt_templates (`Sequence[str]`): Prompts with `{}` for the class name, ensembled.
        batch_size (`int`): Images or texts in one forward.
        max_samples (`int`, *optional*): Evaluate this many rows, spread evenly over the split.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.

    Returns:
        `Evaluation`: `zero_shot_top1`, `zero_shot_top5`, `image_to_text_r1` … `text_to_image_r10`, the accuracy by
        class and the cost.

    Raises:
        HfChainError: when a column is missing, an image cannot be read, a label is no class, there is nothing to
            measure or the embeddings are not finite.
    """
    if class_names is None or label_column is None:
        class_names = label_column = None
    _check_columns(dataset, [image_column, caption_column, label_column])
    if label_column is None and caption_column is None:
        raise HfChainError("Nothing to evaluate: give caption_column, or label_column with class_names")
    rows = _spread(len(dataset), max_samples)
    place = torch.device(device if device is not None else model.device)
    embedder = Embedder(model, processor, batch_size, place, bf16)
    metrics: dict[str, float] = {}
    per_class: dict[str, float] = {}
    # Labels and captions are read before the forwards, so that what is wrong with them is known at once.
    labels = _labels(dataset, label_column, rows, len(class_names)) if label_column and class_names else None
    captions = _captions(dataset, caption_column, rows) if caption_column else None
    with evaluation_mode(model):
        images = embedder.images(dataset, image_column, rows)
        if labels is not None and class_names is not None:
            prompts = class_prompts(class_names, prompt_templates)
            embedded = embedder.texts([prompt for group in prompts for prompt in group])
            classes = class_embeddings(embedded.split([len(group) for group in prompts]))
            metrics, per_class = zero_shot_metrics(images, classes, labels.to(place), class_labels(class_names))
        if captions is not None:
            metrics |= retrieval_metrics(images, embedder.texts(captions.texts), captions.pairs)
    return Evaluation(metrics, per_class, embedder.macs)


def _check_columns(dataset: Dataset, columns: Sequence[str | None]) -> None:
    if not len(dataset):
        raise HfChainError("The evaluation data has no rows: choose another split")
    for column in columns:
        if column is not None and column not in dataset.column_names:
            raise HfChainError(
                f"The evaluation data has no column {column!r}: it has {', '.join(map(repr, dataset.column_names))}"
            )


def _spread(count: int, max_samples: int | None) -> Sequence[int]:
    """At most `max_samples` row numbers at equal distances: data sorted by class still shows every class."""
    if max_samples is None or max_samples >= count:
        return range(count)
    return [i * count // max_samples for i in range(max_samples)]


def _labels(dataset: Dataset, column: str, rows: Sequence[int], classes: int) -> torch.Tensor:
    labels = list(dataset.select(rows)[column])
    for row, label in zip(rows, labels, strict=True):
        if not isinstance(label, int) or not 0 <= label < classes:
            raise HfChainError(
                f"Evaluation data, row {row}: {column} is {label!r}, not a class number from 0 to {classes - 1}"
            )
    return torch.tensor(labels)


def _captions(dataset: Dataset, column: str, rows: Sequence[int]) -> CaptionIndex:
    """The captions of each row; empty ones are left out."""
    cells = [[cell] if isinstance(cell, str) else cell or [] for cell in dataset.select(rows)[column]]
    index = CaptionIndex([[text for text in cell if text and text.strip()] for cell in cells])
    if not index.texts:
        raise HfChainError(f"Column {column!r} of the evaluation data has no caption: choose another caption column")
    return index
