"""What ChainTrainer asks a task: from batch to features, loss and gradient, and what engine and files have to know."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_chain.cost import StepCost
from hf_chain.distillation.teacher import FeatureSource
from hf_chain.engine import Reader

Batch = Mapping[str, torch.Tensor]
Features = Mapping[str, torch.Tensor]
"""What the model gives for a batch, by name: a leading batch axis each, but for those in `Task.unbatched`."""
Handed = tuple[torch.Tensor, ...]
"""Features that student and teacher are compared by, each with a leading batch axis."""


class Task(ABC):
    """A pre-training paradigm. What a task does not say has the default of most.

    Args:
        args (`ChainConfig`): arguments of the training.
    """

    evaluator: ClassVar[str]
    """Name in `evaluation.EVALUATORS`."""
    collator: ClassVar[str]
    """How a user makes batches for it."""
    inputs: ClassVar[tuple[str, ...]]
    """Columns of a batch that the model takes, where they are there."""
    options: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of its forward pass."""
    labels: ClassVar[str]
    """Column that `compute_metrics` gets beside the predictions."""
    additive: ClassVar[bool] = False
    """Whether the loss is a mean over samples that do not look at each other: those of micro-batches are added up."""
    unbatched: ClassVar[Collection[str]] = ()
    """Features without a batch axis."""
    undecayed: ClassVar[tuple[str, ...]] = ()
    """Ends of the names of parameters without weight decay, beside norms and biases."""
    unit: ClassVar[str] = "images"
    """What speed is counted in, as `images_per_second`."""
    FEATURE_LOSS_WEIGHT: ClassVar[float] = 1.0
    """Weight of the feature loss where none is given; a task with a folder says it there, as plans start no torch."""

    text_tokens: int | None = None
    """Tokens that batches pad texts to; what the model takes, where the collator does not say it."""

    def __init__(self, args: Any) -> None:
        self.args = args

    @staticmethod
    def check_values(values: Mapping[str, Any]) -> None:
        """Refuses values of `ChainConfig` that do not suit; a task with a folder says it there."""
        return

    # Before the training

    @abstractmethod
    def teacher(self, given: Any, student: nn.Module) -> FeatureSource:
        """What the teacher hands on: of a live predecessor, which is frozen, or of a cache.

        Raises:
            HfChainError: for what is neither, or cannot read what the student reads.
        """

    @abstractmethod
    def wrap(self, model: nn.Module, teacher: FeatureSource | None) -> PreTrainedModel:
        """The module that is trained: the user's own model, with what maps its features to the teacher's.

        Raises:
            HfChainError: for a model that the task does not train.
        """

    def added(self, model: PreTrainedModel) -> tuple[dict[str, nn.Parameter], str]:
        """Parameters that `wrap` adds, by name, and what to do where an optimizer that is given lacks one."""
        return {}, ""

    def check_batch(self, batch: int) -> None:
        """Refuses a global batch of so many samples where the loss says nothing about it."""
        return

    @abstractmethod
    def step_cost(self, model: PreTrainedModel, teacher: PreTrainedModel | None, data: Any, steps: int) -> StepCost:
        """What a training costs.

        Args:
            model (`PreTrainedModel`): what `wrap` gave.
            teacher (`PreTrainedModel`, *optional*): the live teacher.
            data (`Dataset`): the training data.
            steps (`int`): optimiser steps of the training.
        """

    def cost(self, student: int, teacher: int, steps: int) -> StepCost:
        """The same, where every step sees as much of a sample as the others.

        Args:
            student (`int`): MACs of a sample, forward and backward.
            teacher (`int`): forward MACs of a sample in the live teacher; 0 without one.
            steps (`int`): optimiser steps of the training.
        """
        args = self.args
        return StepCost(
            samples_per_step=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            student=(student, student),
            teacher=(teacher, teacher) if teacher else None,
            teacher_steps=self.taught_steps(steps),
        )

    def taught_steps(self, steps: int) -> int:
        """Steps of a training of so many that run the teacher."""
        return math.ceil(self.args.feature_loss_until * steps) if self.args.feature_loss_weight else 0

    def units(self, data: Any) -> int:
        """Units of speed in a sample of the training data."""
        return 1

    # One batch: inputs -> features -> losses

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Columns that every batch must have."""

    def drawn(self, model: PreTrainedModel, batch: Batch, step: int, steps: int) -> dict[str, torch.Tensor]:
        """Inputs that are drawn for a batch, by seed and step alone: the same however often a training is resumed.

        Args:
            model (`PreTrainedModel`): what is trained.
            batch (`dict`): this process's part of the global batch.
            step (`int`): optimiser steps done.
            steps (`int`): of the whole training.
        """
        return {}

    def fixed(self, model: PreTrainedModel, batch: Batch) -> dict[str, torch.Tensor]:
        """What an evaluation batch has in place of inputs that are drawn: the same in every evaluation."""
        return {}

    @abstractmethod
    def loss(self, features: Features, batch: Batch) -> torch.Tensor:
        """The loss of this process's part of the global batch; its mean over processes is that of the whole."""

    def shown(self, features: Features) -> dict[str, torch.Tensor]:
        """Numbers to log beside the losses."""
        return {}

    @abstractmethod
    def handed(self, features: Features) -> Handed:
        """The student's features that are compared with the teacher's, in their order."""

    @abstractmethod
    def feature_loss(self, student: Handed, teacher: Handed) -> torch.Tensor:
        """The distance between them, before its weight."""

    @abstractmethod
    def predictions(self, features: Features, batch: Batch) -> tuple[torch.Tensor, ...]:
        """What `compute_metrics` gets of an evaluation batch."""

    # What engine and files have to know

    def limits(self, model: PreTrainedModel) -> Iterable[tuple[nn.Parameter, float]]:
        """Parameters that are limited after every step, and their largest value."""
        return ()

    def readers(self, model: PreTrainedModel) -> Iterable[Reader]:
        """Modules that read parameters of modules within them, which ZeRO-3 has to gather for them."""
        return ()

    def is_beside(self, name: str) -> bool:
        """Whether a weight is kept in a file of its own, beside the stock model's."""
        return False

    def load_beside(self, model: PreTrainedModel, folder: str) -> None:
        """Reads those files of a checkpoint."""
        return
