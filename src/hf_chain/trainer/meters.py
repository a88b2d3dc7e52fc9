"""What a training says of its speed: images or tokens a second."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable

import torch

from hf_chain.cost import StepCost


class Meters:
    """Averages values and throughput between two logging steps.

    Args:
        cost (`StepCost`): gives the MACs of the steps.
        unit (`str`): what speed is counted in, such as `images`.
        units (`int`): of those in a sample.
    """

    def __init__(self, cost: StepCost, unit: str = "images", units: int = 1) -> None:
        self.cost, self.unit, self.units = cost, unit, units
        self._sums: dict[str, torch.Tensor] = defaultdict(lambda: torch.zeros(()))
        self._count = 0
        self._step = 0
        self._time = time.perf_counter()

    def start(self, step: int) -> None:
        """Begins to measure at `step`, which is not 0 when a training is resumed."""
        self._step, self._time = step, time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        """Does not count the seconds that have just passed, in which nothing was trained."""
        self._time += seconds

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
            logs[f"{self.unit}_per_second"] = steps * self.cost.samples_per_step * self.units / seconds
            logs["tflops_per_second"] = 2 * macs / seconds / 1e12
        logs["macs"] = self.cost.total_macs(step)
        self._sums.clear()
        self._count, self._step, self._time = 0, step, now
        return logs


class TokenMeter:
    """Counts between two log entries.

    Args:
        reduce (`Callable`): adds a tensor up over the processes.
    """

    def __init__(self, reduce: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._reduce = reduce
        self.start(0.0)

    def start(self, flops: float) -> None:
        """Begins to measure at `flops`, which is not 0 when a training is resumed."""
        self._tokens, self._images, self._flops = torch.zeros((), dtype=torch.int64), 0, flops
        self._time = time.perf_counter()

    def add(self, tokens: torch.Tensor, images: int) -> None:
        """Adds a micro-batch of this process; nothing is moved off its device."""
        self._tokens = self._tokens.to(tokens.device) + tokens
        self._images += images

    def read(self, flops: float) -> dict[str, float]:
        """Seconds and throughput of all processes since the last reading; every process has to call it.

        Args:
            flops (`float`): floating-point operations of all processes since the training began.
        """
        seconds = time.perf_counter() - self._time
        images = torch.full_like(self._tokens, self._images)
        tokens, images = self._reduce(torch.stack([self._tokens, images])).tolist()
        logs = {
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "images_per_second": images / seconds,
            "tflops_per_second": (flops - self._flops) / seconds / 1e12,
        }
        self.start(flops)
        return logs
