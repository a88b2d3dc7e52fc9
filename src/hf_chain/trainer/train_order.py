"""The order of training rows: from seed and epoch alone, so that all processes and attempts draw the same."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class TrainOrder(Sampler[int]):
    """Another sampler's order, drawn with a seed of its own instead of the state the process is in.

    accelerate does so for `RandomSampler` alone.

    Args:
        sampler (`Sampler`): draws from torch's generator.
        seed (`int`): seed of the first epoch; those after it count on from there.

    Attributes:
        epoch (`int`): the present one, to be set before the order is drawn.
    """

    def __init__(self, sampler: Sampler[int], seed: int) -> None:
        self.sampler, self.seed, self.epoch = sampler, seed, 0

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + self.epoch)
            order = list(self.sampler)
        return iter(order)
