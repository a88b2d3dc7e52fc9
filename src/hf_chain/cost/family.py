"""Cost of a whole family: the chain against training every member, or only the largest, independently."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_chain.cost.steps import BACKWARD_FORWARDS, StepCost, training_steps
from hf_chain.errors import HfChainError


@dataclass(frozen=True)
class MemberCost:
    """What it takes to train one member; all costs are in multiply-accumulate operations (MACs).

    Forward MACs of a sample are pairs: with dropped image tokens, and with all of them.

    Attributes:
        name (`str`): Name of the member.
        parameters (`int`): Its weights and biases.
        forward (`tuple[int, int]`): Forward MACs of a sample.
        epochs (`float`): Epochs it is trained in the chain.
        samples_per_epoch (`int`): Samples in an epoch: images, or rows of tokens.
        batch_size (`int`): Samples of the global batch; short batches are dropped, as in the run.
        streamed (`bool`): Whether the data are a stream, whose epochs have no end.
        unmasked_tail (`float`): Share of the training, at its end, in which the student sees every token.
        forward_passes (`int`): Student forwards in a step: 2 when accumulating through cached features, and one more
            with gradient checkpointing.
        teacher (`tuple[int, int]`, *optional*): Forward MACs of a sample in the live teacher, which sees the student's
            tokens.
        teacher_share (`float`): Share of the training in which the teacher is needed.
        cache_macs (`int`): MACs that fill a cache of the teacher's features before the training.
        evaluation_macs (`int`): All evaluations of this member, paid by the independent twin as well.
        until_macs (`int`): Those at most that say when it has reached what it is trained for.
        may_stop (`bool`): Whether it may end before its epochs are over, so that its costs are upper bounds.
        details (`Mapping[str, Any]`): What else the plan says of it, by name, such as MACs of each tower.
    """

    name: str
    parameters: int
    forward: tuple[int, int]
    epochs: float
    samples_per_epoch: int
    batch_size: int = 1
    streamed: bool = False
    unmasked_tail: float = 0.0
    forward_passes: int = 1
    teacher: tuple[int, int] | None = None
    teacher_share: float = 1.0
    cache_macs: int = 0
    evaluation_macs: int = 0
    until_macs: int = 0
    may_stop: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("epochs", "samples_per_epoch", "batch_size", "forward_passes"):
            if getattr(self, name) <= 0:
                raise HfChainError(f"{name} of member {self.name} is {getattr(self, name)}: it must be above 0")
        if self.steps < 1:
            raise HfChainError(
                f"{self.name}: {self.epochs:g} epochs of {self.samples_per_epoch} samples make no batch of "
                f"{self.batch_size}: give it more epochs, or lower per_device_train_batch_size"
            )
        for name in ("unmasked_tail", "teacher_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise HfChainError(f"{name} of member {self.name} is {getattr(self, name)}: choose a share, 0 to 1")

    @property
    def steps(self) -> int:
        """Optimiser steps in the chain."""
        return self._steps(self.epochs)

    @property
    def samples(self) -> int:
        """Samples seen in the chain."""
        return self.steps * self.batch_size

    @property
    def macs_per_sample(self) -> int:
        """Student forward MACs of a sample, averaged over masked and unmasked training."""
        passes = self.forward_passes + BACKWARD_FORWARDS
        return round(self._step_cost(self.steps).student_macs(self.steps) / (passes * max(1, self.samples)))

    @property
    def training_macs(self) -> dict[str, int]:
        """`student`, `teacher` and `total` MACs of training in the chain."""
        cost = self._step_cost(self.steps)
        student, teacher = cost.student_macs(self.steps), cost.teacher_macs(self.steps) + self.cache_macs
        return {"student": student, "teacher": teacher, "total": student + teacher}

    def independent_training_macs(self, epochs: float) -> int:
        """MACs of training the same member from scratch for `epochs`: same data and token savings, no teacher.

        Args:
            epochs (`float`): Epochs of the training from scratch.

        Returns:
            `int`: Multiply-accumulate operations.
        """
        steps = self._steps(epochs)
        return self._step_cost(steps).student_macs(steps)

    def _steps(self, epochs: float) -> int:
        return training_steps(epochs, self.samples_per_epoch, self.batch_size, self.streamed)

    def _step_cost(self, steps: int) -> StepCost:
        passes = self.forward_passes + BACKWARD_FORWARDS
        masked, whole = self.forward
        return StepCost(
            samples_per_step=self.batch_size,
            student=(passes * masked, passes * whole),
            teacher=self.teacher,
            teacher_steps=math.ceil(self.teacher_share * steps),
            unmasked_from=math.ceil((1 - self.unmasked_tail) * steps) if masked != whole else 0,
        )


@dataclass(frozen=True)
class FamilyCost:
    """A chain of members and the independent training it replaces.

    The chain pays for its first member, for every teacher forward and for evaluation. The independent twin of a member
    has the same data, captions and token savings; only its epochs differ and it has no teacher.

    Attributes:
        members (`Sequence[MemberCost]`): Members from small to large.
        baseline_epochs (`float`, *optional*): Epochs of independent training; the first member's epochs by default.
    """

    members: Sequence[MemberCost]
    baseline_epochs: float | None = None

    def __post_init__(self) -> None:
        if not self.members:
            raise HfChainError("The family has no members: add at least one to the recipe")
        if self.independent_epochs <= 0:
            raise HfChainError(f"baseline_epochs is {self.independent_epochs}: it must be above 0")

    @property
    def independent_epochs(self) -> float:
        """Epochs every member is trained for when it is trained alone."""
        return self.members[0].epochs if self.baseline_epochs is None else self.baseline_epochs

    @property
    def chain_macs(self) -> int:
        """MACs of the chain, teachers and evaluation included."""
        return sum(self.in_chain(member) for member in self.members)

    @property
    def independent_macs(self) -> int:
        """MACs of training every member from scratch, evaluation included."""
        return sum(self.alone(member) for member in self.members)

    @property
    def largest(self) -> MemberCost:
        """The member with the most parameters."""
        return max(self.members, key=lambda member: member.parameters)

    @property
    def family_ratio(self) -> float:
        """Acceleration ratio: cost of independent training divided by the chain's (published: 5.68 for T→S→B→L)."""
        return self.independent_macs / self.chain_macs

    @property
    def largest_alone_ratio(self) -> float:
        """Cost of the whole chain divided by that of its largest member alone (published: 0.28 for T→S→B→L)."""
        return self.chain_macs / self.alone(self.largest)

    def in_chain(self, member: MemberCost) -> int:
        """MACs of training and evaluating `member` in the chain.

        Args:
            member (`MemberCost`): One of the family.

        Returns:
            `int`: Multiply-accumulate operations.
        """
        return member.training_macs["total"] + member.evaluation_macs + member.until_macs

    @property
    def may_stop(self) -> bool:
        """Whether a member may end before its epochs are over, so that the chain's costs are upper bounds."""
        return any(member.may_stop for member in self.members)

    def alone(self, member: MemberCost) -> int:
        """MACs of training and evaluating `member` from scratch for the baseline epochs.

        Args:
            member (`MemberCost`): One of the family.

        Returns:
            `int`: Multiply-accumulate operations.
        """
        return member.independent_training_macs(self.independent_epochs) + member.evaluation_macs

    def to_json(self) -> dict[str, Any]:
        """The plan as `hf-chain plan --json` prints it; every cost is in MACs.

        Returns:
            `dict`: Plain values.
        """
        return {
            "members": [self._row(member) for member in self.members],
            "baseline_epochs": self.independent_epochs,
            "chain_macs": self.chain_macs,
            "independent_macs": self.independent_macs,
            "family_ratio": self.family_ratio,
            "largest_alone_ratio": self.largest_alone_ratio,
        }

    def _row(self, member: MemberCost) -> dict[str, Any]:
        training = member.training_macs
        return {
            "name": member.name,
            "parameters": member.parameters,
            "macs_per_sample": member.macs_per_sample,
            **member.details,
            "epochs": member.epochs,
            "samples": member.samples,
            "training_macs": training["total"],
            "student_macs": training["student"],
            "teacher_macs": training["teacher"],
            "evaluation_macs": member.evaluation_macs + member.until_macs,
            **({"until_macs": member.until_macs} if member.may_stop else {}),
            "independent_training_macs": member.independent_training_macs(self.independent_epochs),
        }
