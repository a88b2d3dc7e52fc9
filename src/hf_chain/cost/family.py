"""Cost of a whole family: the chain against training every member, or only the largest, independently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_chain.cost.clip import clip_macs, clip_parameters
from hf_chain.cost.steps import BACKWARD_FORWARDS, StepCost, TowerMACs, training_steps
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from transformers import CLIPConfig


def evaluation_macs(config: CLIPConfig, images: int, texts: int, text_tokens: int | None = None) -> int:
    """MACs of encoding `images` and `texts` (captions or class prompts of `text_tokens` tokens) once.

    Args:
        config (`CLIPConfig`): The model.
        images (`int`): Images that are encoded.
        texts (`int`): Captions and class prompts that are.
        text_tokens (`int`, *optional*): Tokens in each; the whole context by default.

    Returns:
        `int`: Multiply-accumulate operations.
    """
    macs = clip_macs(config, text_tokens)
    return images * macs.image + texts * macs.text


@dataclass(frozen=True)
class MemberCost:
    """What it takes to train one member; all costs are in multiply-accumulate operations (MACs).

    Attributes:
        name (`str`): Name of the member.
        config (`CLIPConfig`): Its model.
        epochs (`float`): Epochs it is trained in the chain.
        samples_per_epoch (`int`): Images in an epoch.
        batch_size (`int`): Images of the global batch; short batches are dropped, as in the run.
        streamed (`bool`): Whether the data are a stream, whose epochs have no end.
        captions (`int`): Captions a step sees of each image.
        text_tokens (`int`, *optional*): Tokens in a caption; the whole context by default.
        image_token_keep (`float`): Share of patch tokens the student sees (FLIP).
        unmasked_tail (`float`): Share of the training, at its end, in which the student sees every token.
        forward_passes (`int`): Student forwards in a step: 2 when accumulating through cached features, and one more
            with gradient checkpointing.
        teacher (`CLIPConfig`, *optional*): The frozen predecessor. Live it sees the student's tokens, cached whole
            images.
        teacher_share (`float`): Share of the training in which the teacher is needed.
        cached_views (`int`, *optional*): Image views in the teacher's feature cache, which is filled before the
            training. `None`: the teacher runs live.
        cached_captions (`int`, *optional*): Different captions in that cache; `captions` an image by default.
        evaluation_macs (`int`): All evaluations of this member, paid by the independent twin as well.
    """

    name: str
    config: CLIPConfig
    epochs: float
    samples_per_epoch: int
    batch_size: int = 1
    streamed: bool = False
    captions: int = 1
    text_tokens: int | None = None
    image_token_keep: float = 1.0
    unmasked_tail: float = 0.0
    forward_passes: int = 1
    teacher: CLIPConfig | None = None
    teacher_share: float = 1.0
    cached_views: int | None = None
    cached_captions: int | None = None
    evaluation_macs: int = 0

    def __post_init__(self) -> None:
        for field in ("epochs", "samples_per_epoch", "batch_size", "captions", "forward_passes"):
            if getattr(self, field) <= 0:
                raise HfChainError(f"{field} of member {self.name} is {getattr(self, field)}: it must be above 0")
        if self.steps < 1:
            raise HfChainError(
                f"{self.name}: {self.epochs:g} epochs of {self.samples_per_epoch} images make no batch of "
                f"{self.batch_size}: give it more epochs, or lower per_device_train_batch_size"
            )
        for field in ("unmasked_tail", "teacher_share"):
            if not 0 <= getattr(self, field) <= 1:
                raise HfChainError(f"{field} of member {self.name} is {getattr(self, field)}: choose a share, 0 to 1")

    @property
    def parameters(self) -> int:
        """Parameters of the member."""
        return clip_parameters(self.config)

    @property
    def steps(self) -> int:
        """Optimiser steps in the chain."""
        return self._steps(self.epochs)

    @property
    def samples(self) -> int:
        """Images seen in the chain."""
        return self.steps * self.batch_size

    @property
    def macs_per_sample(self) -> int:
        """Student forward MACs of an image and its captions, averaged over masked and unmasked training."""
        passes = self.forward_passes + BACKWARD_FORWARDS
        return round(self._step_cost(self.steps).student_macs(self.steps) / (passes * max(1, self.samples)))

    @property
    def text_share(self) -> float:
        """Share of the text tower in `macs_per_sample`."""
        return self.captions * clip_macs(self.config, self.text_tokens).text / self.macs_per_sample

    @property
    def training_macs(self) -> dict[str, int]:
        """`student`, `teacher` and `total` MACs of training in the chain."""
        cost = self._step_cost(self.steps)
        student, teacher = cost.student_macs(self.steps), cost.teacher_macs(self.steps) + self._cache_macs
        return {"student": student, "teacher": teacher, "total": student + teacher}

    def independent_training_macs(self, epochs: float) -> int:
        """MACs of training the same member from scratch for `epochs`: same captions and token savings, no teacher.

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
        live = self.teacher if self.cached_views is None else None
        return StepCost(
            samples_per_step=self.batch_size,
            captions=self.captions,
            student=self._towers(self.config),
            teacher=self._towers(live) if live is not None else None,
            student_passes=self.forward_passes + BACKWARD_FORWARDS,
            teacher_steps=math.ceil(self.teacher_share * steps),
            unmasked_from=math.ceil((1 - self.unmasked_tail) * steps) if self.image_token_keep < 1 else 0,
        )

    def _towers(self, config: CLIPConfig) -> tuple[TowerMACs, TowerMACs]:
        """Forward MACs with dropped image tokens and with all of them."""
        return clip_macs(config, self.text_tokens, self.image_token_keep), clip_macs(config, self.text_tokens)

    @property
    def _cache_macs(self) -> int:
        if self.teacher is None or self.cached_views is None:
            return 0
        captions = self.cached_captions
        if captions is None:
            captions = self.captions * self.samples_per_epoch
        macs = clip_macs(self.teacher, self.text_tokens)
        return self.cached_views * self.samples_per_epoch * macs.image + captions * macs.text


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
        return sum(member.training_macs["total"] + member.evaluation_macs for member in self.members)

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
        towers = clip_macs(member.config, member.text_tokens, member.image_token_keep)
        training = member.training_macs
        return {
            "name": member.name,
            "parameters": member.parameters,
            "macs_per_sample": member.macs_per_sample,
            "macs_per_image": towers.image,
            "macs_per_caption": towers.text,
            "captions": member.captions,
            "text_share": member.text_share,
            "epochs": member.epochs,
            "samples": member.samples,
            "training_macs": training["total"],
            "student_macs": training["student"],
            "teacher_macs": training["teacher"],
            "evaluation_macs": member.evaluation_macs,
            "independent_training_macs": member.independent_training_macs(self.independent_epochs),
        }
