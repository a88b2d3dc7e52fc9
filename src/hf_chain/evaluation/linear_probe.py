"""Linear probe: a logistic regression on the frozen features of a vision tower (CLIP, section 3.2, A.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.evaluation.evaluate import Evaluation, class_numbers, require_columns, spread
from hf_chain.evaluation.image_features import embed_images, image_tower
from hf_chain.evaluation.zero_shot import ClassName, accuracies, check_rows, class_labels
from hf_chain.images import MAX_IMAGE_PIXELS

logger = logging.get_logger(__name__)

HELD_OUT = 5
"""One training row in so many is held out to choose the regularisation by, from class to class."""
COARSE = (0.0, -2.0, -4.0, -6.0)
"""Powers of ten of the regularisation that are tried first, as far as they get better; then those around the best."""
MOST_ITERATIONS = 500


@dataclass(frozen=True)
class LinearProbe:
    """A fitted logistic regression.

    Args:
        weight (`torch.Tensor`): float32, shape `[C, D]`.
        bias (`torch.Tensor`): float32, shape `[C]`.
        l2 (`float`): What half the squared weights, of features of variance 1, were weighted with beside the mean
            cross-entropy.
        held_out (`float`): Accuracy on the rows that it was chosen by, fitted without them.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    l2: float
    held_out: float

    def scores(self, features: torch.Tensor) -> torch.Tensor:
        """Logits `[N, C]` of features `[N, D]`."""
        return features @ self.weight.T + self.bias


def fit_linear_probe(features: torch.Tensor, labels: torch.Tensor, classes: int, seed: int = 0) -> LinearProbe:
    """Fits a logistic regression by L-BFGS, to the end: the problem is convex, so the result depends on no start.

    Features are shifted and scaled to mean 0 and variance 1, which is put into the weights. The regularisation is the
    most accurate of a few on a fifth of each class, and of several the one of the least cross-entropy there: from
    strong to weak in steps of 100 as long as it gets better, then a decade and half a decade to both sides of the
    best. Then all rows are fitted.

    Args:
        features (`torch.Tensor`): float32, shape `[N, D]`.
        labels (`torch.Tensor`): Class of each row, int64, shape `[N]`.
        classes (`int`): Number of classes C.
        seed (`int`): Which rows are held out.

    Returns:
        `LinearProbe`: The regression.

    Raises:
        HfChainError: when there are too few rows to hold one out.
    """
    held_out = _held_out(labels, seed)
    if not held_out.any():
        raise HfChainError(f"the training split has {len(labels)} rows: give {HELD_OUT} or more, as some are held out")
    # The spread of what is the same in all rows is rounding.
    deviation, mean = torch.std_mean(features.double(), 0, correction=0)
    scale = torch.where(deviation > 1e-6 * (1 + mean.abs()), 1 / deviation, 0.0).float()
    mean = mean.float()
    scaled = (features - mean) * scale
    found: dict[float, tuple[float, float]] = {}
    last = None

    def best() -> float:
        return max(found, key=lambda power: found[power])

    def look(power: float) -> None:
        nonlocal last
        last = _fit(scaled[~held_out], labels[~held_out], classes, 10**power, last)
        scores = scaled[held_out] @ last[0].T + last[1]
        right = (scores.argmax(1) == labels[held_out]).double().mean().item()
        found[power] = right, -cross_entropy(scores, labels[held_out]).item()

    for power in COARSE:
        look(power)
        if best() != power:
            # Weaker ones fit the rest worse still, and take the longest.
            break
    for step in (1.0, 0.5):
        middle = best()
        look(middle + step)
        look(middle - step)
    power = best()
    weight, bias = _fit(scaled, labels, classes, 10**power, last)
    weight = weight * scale
    return LinearProbe(weight, bias - weight @ mean, 10**power, found[power][0])


def _held_out(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Which rows are held out, bool, shape `[N]`: each fifth of an order by class that is drawn within classes."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    order = order[labels[order].argsort(stable=True)]
    chosen = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    chosen[order[HELD_OUT - 1 :: HELD_OUT]] = True
    return chosen


Layer = tuple[torch.Tensor, torch.Tensor]


def _fit(features: torch.Tensor, labels: torch.Tensor, classes: int, l2: float, start: Layer | None) -> Layer:
    """Weight `[C, D]` and bias `[C]` of the least mean cross-entropy plus half of `l2` times the squared weight."""
    new = features.new_zeros(classes, features.shape[1]), features.new_zeros(classes)
    weight, bias = (part.clone().requires_grad_() for part in start or new)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MOST_ITERATIONS, tolerance_grad=1e-5, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = cross_entropy(features @ weight.T + bias, labels) + l2 / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return weight.detach(), bias.detach()


def evaluate_linear_probe(
    model: PreTrainedModel,
    image_processor: Any,
    train: Dataset,
    dataset: Dataset,
    *,
    class_names: Sequence[ClassName],
    image_column: str = "image",
    label_column: str = "label",
    batch_size: int = 256,
    max_samples: int | None = None,
    max_train_samples: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    bf16: bool = False,
    max_image_pixels: int | None = MAX_IMAGE_PIXELS,
) -> Evaluation:
    """Measures how well the classes of a data set can be told by a linear layer on the features of a vision tower.

    Every image is embedded once. Runs without gradients through the model and leaves its modules in their modes.

    Args:
        model (`PreTrainedModel`): A CLIP, SigLIP or other dual encoder, or a vision model of a family.
        image_processor (`BaseImageProcessor` or `ProcessorMixin`): What was saved with the model.
        train (`datasets.Dataset`): The split that the layer is fitted on.
        dataset (`datasets.Dataset`): The split that it is judged on.
        class_names (`Sequence[str | Sequence[str]]`): Name, or names, of each class.
        image_column (`str`): Column of images.
        label_column (`str`): Column of class numbers.
        batch_size (`int`): Images in one forward.
        max_samples (`int`, *optional*): Judge by this many rows, spread evenly over the split.
        max_train_samples (`int`, *optional*): Fit on this many rows, likewise.
        seed (`int`): Which training rows choose the regularisation.
        device (`torch.device`, *optional*): Where the model is; default: `model.device`.
        bf16 (`bool`): Run the forwards under bfloat16 autocast.
        max_image_pixels (`int`, *optional*): Pixels above which an image is not read; `None` for any number.

    Returns:
        `Evaluation`: `linear_probe_top1` and `linear_probe_top5`, top-1 by class, and the cost of the forwards.

    Raises:
        HfChainError: when the model has no vision tower, an argument cannot be used, a column is missing, features are
            not finite, or a row is one that `check_quality` leaves out.
    """
    tower = image_tower(model)
    labels, rows = [], []
    for split, most in ((train, max_train_samples), (dataset, max_samples)):
        check_rows(split, batch_size, most)
        require_columns(split, [image_column, label_column])
        rows.append(spread(len(split), most))
        labels.append(class_numbers(split.with_format(None), label_column, rows[-1], len(class_names)))
    options: dict[str, Any] = {"image_column": image_column, "batch_size": batch_size, "device": device, "bf16": bf16}
    options["max_image_pixels"] = max_image_pixels
    known, judged = (
        embed_images(tower, image_processor, split, numbers, **options)
        for split, numbers in zip((train, dataset), rows, strict=True)
    )
    probe = fit_linear_probe(known, labels[0].to(known.device), len(class_names), seed)
    logger.info(f"linear probe: l2 {probe.l2:.1e}, {100 * probe.held_out:.1f} % of held-out training rows right")
    scores, macs = probe.scores(judged), tower.macs * sum(map(len, rows))
    return transfer_evaluation("linear_probe", scores, labels[1], class_names, macs)


def transfer_evaluation(
    kind: str, scores: torch.Tensor, labels: torch.Tensor, class_names: Sequence[ClassName], macs: int
) -> Evaluation:
    """`<kind>_top1` and `<kind>_top5` of scores.

    Args:
        kind (`str`): `linear_probe` or `fine_tune`.
        scores (`torch.Tensor`): Shape `[N, C]`.
        labels (`torch.Tensor`): Class of each image, shape `[N]`.
        class_names (`Sequence`): Name, or names, of each class.
        macs (`int`): Cost of it all.
    """
    top1, top5, per_class = accuracies(scores, labels.to(scores.device), class_labels(class_names))
    names, classes = (f"{kind}_top1", f"{kind}_top5"), len(class_names)
    return Evaluation(
        metrics=dict(zip(names, (top1, top5), strict=True)),
        per_class=per_class,
        macs=macs,
        chance=dict(zip(names, (1 / classes, min(1.0, 5 / classes)), strict=True)),
        trials=dict.fromkeys(names, len(labels)),
    )
