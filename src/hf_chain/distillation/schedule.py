"""How the weight of the feature loss changes while a member trains."""

from __future__ import annotations

import math
from collections.abc import Callable

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear": lambda progress: 1.0 - progress,
    "cosine": lambda progress: (1.0 + math.cos(math.pi * progress)) / 2,
}
"""Schedule name -> factor at a progress in [0, 1)."""


def weight_factor(schedule: str, until: float, step: int, total_steps: int) -> float:
    """Factor on the feature loss weight at an optimiser step.

    Args:
        schedule (`str`): a name in `SCHEDULES`.
        until (`float`): share of the training, in (0, 1], after which the weight is 0; a decaying schedule reaches 0
            there, and the teacher is not run from there on.
        step (`int`): optimiser steps done so far.
        total_steps (`int`): optimiser steps of the whole training.

    Returns:
        `float`: in [0, 1].
    """
    progress = step / max(1.0, until * total_steps)
    return SCHEDULES[schedule](progress) if progress < 1.0 else 0.0
