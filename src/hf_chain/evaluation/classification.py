"""Evaluates one image classifier on one split."""

from __future__ import annotations

from typing import Any

import torch
from datasets import ClassLabel, Dataset
from transformers import PreTrainedModel

from hf_chain.cost import classifier_macs
from hf_chain.data.captions import with_stored_images
from hf_chain.errors import HfChainError
from hf_chain.evaluation.embed import image_batches
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

    Runs without gradients and leaves every module in the mode it was in.

    Args:
        model (`PreTrainedModel`): `ViTForImageClassification` or another with `logits`.
        image_processor (`BaseImageProcessor`): The image processor saved with the model.
        dataset (`datasets.Dataset`): The split; its images are read as in training.
        image_column (`str`): Column of images.
        label_column (`str`): Column of class numbers.
        batch_size (`int`): Images in one forward.
        max_samples (`int`, *optional*): Evaluate this many rows, spread evenly over the split.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.
        max_image_pixels (`int`, *optional*): Pixels above which an image is not read; `None` for any number.

    Returns:
        `Evaluation`: `top1` and `top5`, top-1 by class, and the cost. Classes have the names that the data give them,
        or else those of the model.

    Raises:
        HfChainError: when an argument cannot be used, a column is missing, the logits are not finite, the data name
            more classes than the model has, or a row is one that `check_quality` leaves out.
    """
    check_rows(dataset, batch_size, max_samples)
    require_columns(dataset, [image_column, label_column])
    classes = model.config.num_labels
    feature = dataset.features[label_column]
    names = feature.names if isinstance(feature, ClassLabel) else [model.config.id2label[c] for c in range(classes)]
    if len(names) != classes:
        raise HfChainError(
            f"the evaluation data have {len(names)} classes and the model {classes}: give data of its own"
        )
    rows = spread(len(dataset), max_samples)
    # Plain rows, whatever format the data set is set to.
    dataset = with_stored_images(dataset.with_format(None), image_column)
    device = torch.device(device if device is not None else model.device)
    labels = class_numbers(dataset, label_column, rows, classes)
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
    top1, top5, per_class = accuracies(scores, labels.to(device), class_labels(names))
    return Evaluation(
        metrics={"top1": top1, "top5": top5},
        per_class=per_class,
        macs=len(rows) * sum(classifier_macs(model.config)),
        chance={"top1": 1 / classes, "top5": min(1.0, 5 / classes)},
        trials=dict.fromkeys(("top1", "top5"), len(rows)),
    )
