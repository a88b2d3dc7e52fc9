"""Training of image classifiers: images -> logits -> cross-entropy, and the teacher's classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, PreTrainedModel

from hf_chain.adapters import check_no_adapter
from hf_chain.arguments.checkpointing import checkpoints_activations
from hf_chain.cost import StepCost, classifier_macs, forward_passes
from hf_chain.cost.steps import BACKWARD_FORWARDS
from hf_chain.distillation import LiveTeacher
from hf_chain.distillation.teacher import FeatureSource
from hf_chain.engine import builds_in_pieces
from hf_chain.errors import HfChainError
from hf_chain.families import family_of
from hf_chain.tasks.classification.values import other_classes
from hf_chain.tasks.task import Batch, Features, Handed, Task


class ClassificationTask(Task):
    """Trains an image classifier itself: ViT, DeiT, Swin, Swin-V2, ConvNeXt or DINOv2.

    The loss is the mean cross-entropy over the global batch, with `label_smoothing_factor` where that is set. The
    teacher hands on logits; the feature loss is the Kullback-Leibler divergence from its classes to the student's, at
    temperature 1. Source: Hinton et al. (arXiv 1503.02531), section 2. Predictions for `compute_metrics` are logits
    `[N, C]`, and labels the class numbers `[N]`.

    Args:
        args (`ChainConfig`): arguments of the training.
    """

    evaluator = "classifier"
    collator = "ImageCollator(image_processor) of ImageDataset(rows, ImageSettings(label_column=...))"
    inputs = ("pixel_values",)
    labels = "labels"
    additive = True

    def teacher(self, given: Any, student: nn.Module) -> FeatureSource:
        """A classifier of the same images and classes, or another source of its logits."""
        if isinstance(given, PreTrainedModel):
            _check_classifier(given, "the teacher")
            if isinstance(student, PreTrainedModel):
                _check_same(given.config, student.config)
            return LogitsTeacher(given)
        if not hasattr(given, "features"):
            raise HfChainError(f"the teacher is a {type(given).__name__}: give an image classifier")
        source: FeatureSource = given
        return source

    def wrap(self, model: nn.Module, teacher: FeatureSource | None) -> PreTrainedModel:
        """The model itself; a token for hidden patches, which DINOv2 has and nothing reads here, is frozen."""
        trained = _check_classifier(model, "the model to train")
        if not builds_in_pieces():
            check_no_adapter(model, f"this {type(model).__name__}")
        for name, parameter in model.named_parameters():
            if name.endswith("mask_token"):
                parameter.requires_grad_(False)
        return trained

    def step_cost(self, model: PreTrainedModel, teacher: PreTrainedModel | None, data: Any, steps: int) -> StepCost:
        """Encoder and head of student and teacher; nothing goes back through an encoder that is frozen whole."""
        args = self.args
        again = bool(args.gradient_checkpointing) or checkpoints_activations(model)
        encoder, head = classifier_macs(model.config)
        passes = BACKWARD_FORWARDS + forward_passes(None, again)
        if not any(weight.requires_grad for weight in model.base_model.parameters()):
            passes = 1
        student = passes * encoder + (1 + BACKWARD_FORWARDS) * head
        taught = sum(classifier_macs(teacher.config)) if teacher is not None else 0
        return self.cost(student, taught, steps)

    # One batch

    @property
    def columns(self) -> list[str]:
        """Images and their class numbers."""
        return ["pixel_values", "labels"]

    def loss(self, features: Features, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy."""
        logits, labels = features["logits"].float(), batch["labels"]
        if labels.device.type == "cpu" and (largest := int(labels.max())) >= logits.shape[-1]:
            # On other devices a look at the numbers would make them wait.
            raise HfChainError(
                f"a label is {largest} and the model has {logits.shape[-1]} classes: give it num_labels of the data"
            )
        return cross_entropy(logits, labels, label_smoothing=self.args.label_smoothing_factor)

    def handed(self, features: Features) -> Handed:
        """The logits."""
        return (features["logits"].float(),)

    def feature_loss(self, student: Handed, teacher: Handed) -> torch.Tensor:
        """Mean Kullback-Leibler divergence from the teacher's classes to the student's, in nats."""
        (student_logits,), (teacher_logits,) = student, teacher
        expected = log_softmax(teacher_logits, dim=-1)
        return kl_div(log_softmax(student_logits, dim=-1), expected, reduction="batchmean", log_target=True)

    def predictions(self, features: Features, batch: Batch) -> tuple[torch.Tensor, ...]:
        """The logits."""
        return (features["logits"],)


class LogitsTeacher(LiveTeacher):
    """A frozen image classifier; a cache keeps its logits."""

    reads = ("pixel_values",)

    def stored(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The logits."""
        (logits,) = self.features(batch)
        return logits

    def stored_shape(self, dataset: Any) -> tuple[int, ...]:
        """One number a class."""
        return (self.model.config.num_labels,)

    def storing_macs(self, dataset: Any) -> int:
        """Of an image."""
        return sum(classifier_macs(self.model.config))

    @torch.no_grad()
    def features(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Logits of `pixel_values` `[B, 3, H, W]`, shape `[B, C]`, float32."""
        return (self.model(pixel_values=batch["pixel_values"]).logits.float(),)


def _check_classifier(model: nn.Module, name: str) -> PreTrainedModel:
    """Refuses what is no image classifier of a family that can be counted and grown."""
    kinds = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.get(type(getattr(model, "config", None)), ())
    # Of DeiT's two the first; the other one has a head for a teacher of its own.
    kind = kinds[0] if isinstance(kinds, tuple) and kinds else kinds
    if not isinstance(model, PreTrainedModel) or not kind or not isinstance(model, kind):
        raise HfChainError(
            f"{name} is a {type(model).__name__}: give an image classifier, as ViTForImageClassification"
        )
    if family_of(model.config).kind != "encoder":
        raise HfChainError(f"{name} is a {type(model).__name__}, which has a text tower too: give a vision model")
    if getattr(model, "is_quantized", False):
        raise HfChainError(f"{name} is quantised: load it without quantization_config")
    return model


def _check_same(teacher: Any, student: Any) -> None:
    """Refuses a teacher of other images or classes than the student's."""
    for field in ("num_labels", "image_size", "num_channels"):
        has, needs = getattr(teacher, field), getattr(student, field)
        if has != needs:
            raise HfChainError(f"the teacher has {field}={has} and the model {needs}: both read the same data")
    if other_classes(teacher, student):
        raise HfChainError(
            "the teacher's id2label names other classes than the model's, or its problem_type is another: give both "
            "the same"
        )
