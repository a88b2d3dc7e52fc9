"""Width by padding, any D′ > D: new channels hold the stream's mean, which a layer norm turns into zeros."""

from __future__ import annotations

import torch

from hf_chain.growth.width import normal, root_mean_square


class Padded:
    """Writes are centred and get zero rows: old channels keep what the norms see, new ones normalise to zero.

    The variance over D′ channels is r times the one over D, which γ′ = γ√r and ε′ = rε undo. Reads of the new channels
    are random: they read zeros at first, and carry a gradient to the zero rows at once.
    Exact in a tower without a norm before the first block.

    Args:
        old (`int`): D.
        new (`int`): D′.
        generator (`torch.Generator`): the source of the new reads.
    """

    def __init__(self, old: int, new: int, generator: torch.Generator) -> None:
        self.old = old
        self.extra = new - old
        self.epsilon_scale = old / new
        self.generator = generator

    def embed(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight - weight.mean(0), weight.new_zeros(self.extra, *weight.shape[1:])])

    def write(self, weight: torch.Tensor) -> torch.Tensor:
        return Padded.embed(self, weight)

    def gain(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight, weight.abs().mean().expand(self.extra)]) * self.epsilon_scale**0.5

    def shift(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight, weight.new_zeros(self.extra)])

    first_gain = gain
    first_shift = shift

    def read(self, weight: torch.Tensor) -> torch.Tensor:
        fresh = normal(self.generator, len(weight), self.extra) * root_mean_square(weight)
        return torch.cat([weight, fresh], dim=1)

    def silent_read(self, units: int, scale: float) -> torch.Tensor:
        fresh = normal(self.generator, units, self.extra) * scale
        return torch.cat([fresh.new_zeros(units, self.old), fresh], dim=1)
