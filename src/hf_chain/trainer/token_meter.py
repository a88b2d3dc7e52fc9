"""What a stage logs about its speed: tokens, images and operations a second."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


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
