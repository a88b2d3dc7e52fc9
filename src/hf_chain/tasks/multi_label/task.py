"""Training of multi-label image classifiers: images -> logits -> binary cross-entropy, and the teacher's classes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import PreTrainedModel

from hf_chain.distillation.teacher import FeatureSource
from hf_chain.errors import HfChainError
from hf_chain.tasks.classification.task import ClassificationTask
from hf_chain.tasks.classification.values import SEVERAL
from hf_chain.tasks.task import Batch, Features, Handed


class MultiLabelTask(ClassificationTask):
    """Trains an image classifier of `ClassificationTask` on images that have several classes each, or none.

    The loss is the mean binary cross-entropy over the global batch and the classes, that of the stock class with
    `problem_type="multi_label_classification"`. The teacher hands on logits; the feature loss is the mean binary
    Kullback-Leibler divergence from its probabilities to the student's. Predictions for `compute_metrics` are logits
    `[N, C]`, and labels as many numbers, 1.0 for the classes of an image and 0.0 for the others.

    Args:
        args (`ChainConfig`): arguments of the training.
    """

    collator = "ImageCollator(image_processor) of ImageDataset(rows, MultiLabelSettings(label_column=...))"

    def wrap(self, model: nn.Module, teacher: FeatureSource | None) -> PreTrainedModel:
        """The model itself, which has to say that its classes do not exclude each other."""
        trained = super().wrap(model, teacher)
        if (found := trained.config.problem_type) != SEVERAL:
            raise HfChainError(f"the model to train has problem_type={found!r} in its configuration: set {SEVERAL!r}")
        return trained

    def loss(self, features: Features, batch: Batch) -> torch.Tensor:
        """Mean binary cross-entropy."""
        logits, labels = features["logits"].float(), batch["labels"]
        if labels.shape != logits.shape:
            raise HfChainError(
                f"labels of a batch have shape {list(labels.shape)} and the logits {list(logits.shape)}: give 0 or 1 "
                "for each class, and a model with num_labels of the data"
            )
        return binary_cross_entropy_with_logits(logits, labels.float())

    def feature_loss(self, student: Handed, teacher: Handed) -> torch.Tensor:
        """Mean binary Kullback-Leibler divergence from the teacher's probabilities to the student's, in nats."""
        (student_logits,), (teacher_logits,) = student, teacher
        expected = teacher_logits.sigmoid()
        entropy = binary_cross_entropy_with_logits(teacher_logits, expected)
        return binary_cross_entropy_with_logits(student_logits, expected) - entropy
