"""Optimiser steps of a member's training and what they cost, as plan and trainer both count them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hf_chain.cost.macs import TowerMACs

BACKWARD_FORWARDS = 2
"""A backward pass costs two forwards: the gradients of the inputs and those of the weights."""


def training_steps(epochs: float, samples_per_epoch: int, batch_size: int, streamed: bool = False) -> int:
    """Optimiser steps of a training: short last batches are dropped, by a stream at its end, else in every epoch.

    Args:
        epochs (`float`): Epochs, or parts of one.
        samples_per_epoch (`int`): Images in an epoch.
        batch_size (`int`): Images of the global batch.
        streamed (`bool`): Whether the data are a stream.

    Returns:
        `int`: Steps, 0 where there is no whole batch.
    """
    if streamed:
        return int(epochs * samples_per_epoch) // batch_size
    return math.ceil(epochs * (samples_per_epoch // batch_size))


def forward_passes(micro_batch_size: int | None, gradient_checkpointing: bool) -> int:
    """Student forwards in a step: a second one to cache features, and one more to recompute activations.

    Args:
        micro_batch_size (`int`, *optional*): Of `ChainConfig`: accumulate through cached features.
        gradient_checkpointing (`bool`): Of `TrainingArguments`.

    Returns:
        `int`: 1 to 3.
    """
    return 1 + (micro_batch_size is not None) + bool(gradient_checkpointing)


@dataclass(frozen=True)
class StepCost:
    """MACs of a member's training as a function of the optimiser steps done: the plan's and the trainer's own.

    Args:
        samples_per_step (`int`): samples of the global batch.
        captions (`int`): captions K a sample.
        student (`tuple[TowerMACs, TowerMACs]`): forward MACs with dropped image tokens and with all of them.
        teacher (`tuple[TowerMACs, TowerMACs]`, *optional*): the same of a live teacher.
        student_passes (`int`): forward-equivalents a sample: forward and backward are 3, and 4 with a second forward.
        teacher_steps (`int`): steps that run the teacher.
        unmasked_from (`int`): step from which all image tokens are seen.
        spared (`tuple[int, int]`): forward-equivalents less for the image and the text tower, where they are frozen.
    """

    samples_per_step: int
    captions: int
    student: tuple[TowerMACs, TowerMACs]
    teacher: tuple[TowerMACs, TowerMACs] | None
    student_passes: int
    teacher_steps: int
    unmasked_from: int
    spared: tuple[int, int] = (0, 0)

    def student_macs(self, steps: int) -> int:
        """Training MACs of the student after `steps` optimiser steps."""
        image, text = (self.student_passes - spared for spared in self.spared)
        masked, whole = (TowerMACs(image * macs.image, text * macs.text) for macs in self.student)
        return self._forward((masked, whole), steps)

    def teacher_macs(self, steps: int) -> int:
        """Forward MACs of the live teacher after `steps` optimiser steps."""
        return self._forward(self.teacher, min(steps, self.teacher_steps)) if self.teacher is not None else 0

    def total_macs(self, steps: int) -> int:
        """Student and teacher together."""
        return self.student_macs(steps) + self.teacher_macs(steps)

    def _forward(self, towers: tuple[TowerMACs, TowerMACs], steps: int) -> int:
        masked, whole = (macs.per_sample(self.captions) for macs in towers)
        masked_steps = min(steps, self.unmasked_from)
        return self.samples_per_step * (masked_steps * masked + (steps - masked_steps) * whole)
