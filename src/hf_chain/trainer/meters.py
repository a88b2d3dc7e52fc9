"""What a training logs about itself: loss parts, throughput, MACs so far."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

import torch

from hf_chain.cost import TowerMACs


@dataclass
class StepCost:
    """MACs of a member's training as a function of the optimiser steps done.

    Args:
        samples_per_step (`int`): samples of the global batch.
        captions (`int`): captions K a sample.
        student (`tuple[TowerMACs, TowerMACs]`): forward MACs with dropped image tokens and with all of them.
        teacher (`tuple[TowerMACs, TowerMACs]`, *optional*): the same of a live teacher.
        student_passes (`int`): forward-equivalents a sample: forward and backward are 3, and 4 with a second forward.
        teacher_steps (`int`): steps that run the teacher.
        unmasked_from (`int`): step from which all image tokens are seen.
    """

    samples_per_step: int
    captions: int
    student: tuple[TowerMACs, TowerMACs]
    teacher: tuple[TowerMACs, TowerMACs] | None
    student_passes: int
    teacher_steps: int
    unmasked_from: int

    def student_macs(self, steps: int) -> int:
        """Training MACs of the student after `steps` optimiser steps."""
        return self.student_passes * self._forward(self.student, steps)

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


class Meters:
    """Averages values and throughput between two logging steps.

    Args:
        cost (`StepCost`): gives the MACs of the steps.
    """

    def __init__(self, cost: StepCost) -> None:
        self.cost = cost
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(()))
        self._count = 0
        self._step = 0
        self._time = time.perf_counter()

    def start(self, step: int) -> None:
        """Begins to measure at `step`, which is not 0 when a training is resumed."""
        self._step, self._time = step, time.perf_counter()

    def add(self, **values: torch.Tensor) -> None:
        """Adds the detached values of one step; nothing is moved off its device."""
        for name, value in values.items():
            total = self._sums[name]
            self._sums[name] = total.to(value.device) + value.detach().float().reshape(())
        self._count += 1

    def read(self, step: int) -> dict[str, float]:
        """Means and throughput since the last reading, and MACs (multiply-accumulates) since the training began."""
        now = time.perf_counter()
        logs = {name: (total / max(1, self._count)).item() for name, total in self._sums.items()}
        steps, seconds = step - self._step, now - self._time
        if steps > 0 and seconds > 0:
            macs = self.cost.total_macs(step) - self.cost.total_macs(self._step)
            logs["images_per_second"] = steps * self.cost.samples_per_step / seconds
            logs["tflops_per_second"] = 2 * macs / seconds / 1e12
        logs["macs"] = self.cost.total_macs(step)
        self._sums.clear()
        self._count, self._step, self._time = 0, step, now
        return logs
