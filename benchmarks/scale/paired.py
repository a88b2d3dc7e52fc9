"""CPU time of ways to do the same thing, measured in turns, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def cpu_seconds(ways: Mapping[str, Callable[[], Any]], rounds: int = 7) -> dict[str, list[float]]:
    """CPU seconds, of the kernel's too, of each way in each round; a first round is not counted.

    Args:
        ways (`Mapping[str, Callable]`): name of a way to what it does; all threads of this process count.
        rounds (`int`, *optional*, defaults to 7): how often each way is measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            taken = time.process_time() - start
            if number:
                seconds[name].append(taken)
    return seconds


def ratio(seconds: Mapping[str, list[float]], way: str, control: str) -> float:
    """Median of the ratios of two ways, round by round."""
    return statistics.median(ours / other for ours, other in zip(seconds[way], seconds[control], strict=True))
