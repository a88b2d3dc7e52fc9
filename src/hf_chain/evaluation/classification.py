"""Evaluates one image classifier on one split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import ClassLabel, Dataset
from transformers import PreTrainedModel

from hf_chain.cost import classifier_macs
from hf_chain.data.captions import class_number, with_stored_images
from hf_chain.errors import HfChainError, shortened
from hf_chain.evaluation.embed import bad_row, image_batches
from hf_chain.evaluation.evaluate import Evaluation, class_numbers, require_columns, spread
from hf_chain.evaluation.zero_shot import accuracies, check_rows, class_labels
from hf_chain.images import MAX_IMAGE_PIXELS
from hf_chain.module_modes import evaluation_mode


def evaluate_classifier(
    model: PreTrainedModel,
    image_processor: Any,
    dataset: Dataset,
    *,
    image_column: str = "image",
    label_column: str = "label",
    batch_size: int = 256,
    max_samples: int | None = None,
    device: torch.device | str | None = None,
    bf16: bool = False,
    max_image_pixels: int | None = MAX_IMAGE_PIXELS,
) -> Evaluation:
    """Measures how often an image classifier names the right class first, or among the first five.

    Of a model with `problem_type="multi_label_classification"` it is how far a class's images stand before the others.
    Runs without gradients and leaves every module in the mode it was in.

    Args:
        model (`PreTrainedModel`): `ViTForImageClassification` or another with `logits`.
        image_processor (`BaseImageProcessor`): The image processor saved with the model.
        dataset (`datasets.Dataset`): The split; its images are read as in training.
        image_column (`str`): Column of images.
        label_column (`str`): Column of class numbers, or of lists of them.
        batch_size (`int`): Images in one forward.
        max_samples (`int`, *optional*): Evaluate this many rows, spread evenly over the split.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.
        max_image_pixels (`int`, *optional*): Pixels above which an image is not read; `None` for any number.

    Returns:
        `Evaluation`: `top1` and `top5`, top-1 by class, and the cost; where an image may have several classes
        `mean_average_precision` over the classes that occur, and average precision by class. Classes have the names
        that the data give them, or else those of the model.

    Raises:
        HfChainError: when an argument cannot be used, a column is missing, the logits are not finite, the data name
            more classes than the model has, or a row is one that `check_quality` leaves out.
    """
    check_rows(dataset, batch_size, max_samples)
    require_columns(dataset, [image_column, label_column])
    classes = model.config.num_labels
    feature = dataset.features[label_column]
    feature = getattr(feature, "feature", feature)
    names = feature.names if isinstance(feature, ClassLabel) else [model.config.id2label[c] for c in range(classes)]
    if len(names) != classes:
        raise HfChainError(
            f"the evaluation data have {len(names)} classes and the model {classes}: give data of its own"
        )
    rows = spread(len(dataset), max_samples)
    # Plain rows, whatever format the data set is set to.
    dataset = with_stored_images(dataset.with_format(None), image_column)
    device = torch.device(device if device is not None else model.device)
    several = model.config.problem_type == "multi_label_classification"
    labels = (_classes if several else class_numbers)(dataset, label_column, rows, classes)
    logits = []
    with evaluation_mode(model), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for images in image_batches(dataset, image_column, rows, batch_size, max_image_pixels, "Classifying images"):
            inputs = image_processor(images=images, return_tensors="pt").to(device)
            logits.append(model(**inputs).logits.float())
    scores = torch.cat(logits)
    if not torch.isfinite(scores).all():
        raise HfChainError(
            "The model's logits are not finite: training diverged; lower learning_rate or raise warmup_steps"
        )
    macs = len(rows) * sum(classifier_macs(model.config))
    if several:
        occurring = labels.any(0)
        precisions = average_precisions(scores, labels.to(device)).cpu()
        return Evaluation(
            metrics={"mean_average_precision": precisions[occurring].mean().item()},
            per_class={n: precisions[c].item() for c, n in enumerate(class_labels(names)) if occurring[c]},
            macs=macs,
            chance={"mean_average_precision": labels.float().mean(0)[occurring].mean().item()},
        )
    top1, top5, per_class = accuracies(scores, labels.to(device), class_labels(names))
    return Evaluation(
        metrics={"top1": top1, "top5": top5},
        per_class=per_class,
        macs=macs,
        chance={"top1": 1 / classes, "top5": min(1.0, 5 / classes)},
        trials=dict.fromkeys(("top1", "top5"), len(rows)),
    )


def average_precisions(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Average precision of each class: the mean of the precision at the score of each image that has the class.

    Images of equal scores stand at one threshold, and nothing is interpolated, as scikit-learn has it.

    Args:
        scores (`torch.Tensor`): Score of each class for each image, shape `[N, C]`.
        labels (`torch.Tensor`): Whether the image has the class, bool, shape `[N, C]`.

    Returns:
        `torch.Tensor`: One number in [0, 1] a class, shape `[C]`; 0 for a class that no image has.
    """
    ordered, order = scores.T.contiguous().sort(dim=1)
    right = labels.T.gather(1, order)
    # Of each image the first one of its score, from which on all are named with it.
    first = torch.searchsorted(ordered, ordered)
    named = scores.shape[0] - first
    hits = right.flip(1).cumsum(1).flip(1).gather(1, first)
    return (right * hits / named).sum(1) / right.sum(1).clamp(min=1)


def _classes(dataset: Dataset, column: str, rows: Sequence[int], classes: int) -> torch.Tensor:
    """Whether a row has a class, bool, shape `[len(rows), C]`; a row without a list is an error that names it."""
    labels = torch.zeros(len(rows), classes, dtype=torch.bool)
    for has, row, numbers in zip(labels, rows, dataset.select(rows)[column], strict=True):
        if not isinstance(numbers, list):
            raise bad_row(row, f"label {shortened(numbers)} is no list of class numbers")
        try:
            has[[class_number(number, classes) for number in numbers]] = True
        except ValueError as error:
            raise bad_row(row, str(error)) from error
    if not labels.any():
        raise HfChainError("no row of the evaluation data has a class: choose another split or label_column")
    return labels
