"""Width by padding, any D′ > D: old channels stay what they are, new ones are zero behind every norm."""

from __future__ import annotations

import torch

from hf_chain.growth.width import normal, root_mean_square


class Padded:
    """Zero rows: the rule for norms that do not subtract the mean, and what the other padding rules share.

    The mean square over D′ channels is r times the one over D, which γ′ = γ√r and ε′ = rε undo. Reads of the new
    channels are random: they read zeros at first, and carry a gradient to the zero rows at once.

    Args:
        old (`int`): D.
        new (`int`): D′.
        generator (`torch.Generator`): The source of the new reads.
    """

    how = "zeros are added"
    head_scale = 1.0

    def __init__(self, old: int, new: int, generator: torch.Generator) -> None:
        self.old = old
        self.extra = new - old
        self.epsilon_scale = old / new
        self.generator = generator

    def embed(self, weight: torch.Tensor) -> torch.Tensor:
        return self.write(weight)

    def write(self, weight: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        return self.shift(weight)

    def probe(self, weight: torch.Tensor) -> torch.Tensor:
        return self.shift(weight)

    def gain(self, weight: torch.Tensor) -> torch.Tensor:
        return self.scale(weight) * self.epsilon_scale**0.5

    def shift(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight, weight.new_zeros(self.extra, *weight.shape[1:])])

    def depthwise(self, weight: torch.Tensor) -> torch.Tensor:
        return self.shift(weight)

    def scale(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight, weight.abs().mean().expand(self.extra)])

    first_gain = gain
    first_shift = shift

    def read(self, weight: torch.Tensor) -> torch.Tensor:
        fresh = normal(self.generator, len(weight), self.extra) * root_mean_square(weight)
        return torch.cat([weight, fresh], dim=1)

    def read_mean(self, weight: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        # Random, and yet blind to what all new channels have.
        noise = normal(self.generator, len(weight), self.extra) * root_mean_square(weight)
        return torch.cat([weight, share[:, None] + noise - noise.mean(1, keepdim=True)], dim=1)

    def silent_read(self, units: int, scale: float) -> torch.Tensor:
        fresh = normal(self.generator, units, self.extra) * scale
        return torch.cat([fresh.new_zeros(units, self.old), fresh], dim=1)


class Centred(Padded):
    """For norms that subtract the mean: every write loses its mean, so that the zeros of new channels *are* the mean.

    Exact in a stream without a norm before the first block, whose embedding is not the head as well.
    """

    how = "writes are centred, zeros are added"

    def embed(self, weight: torch.Tensor) -> torch.Tensor:
        return Centred.write(self, weight)

    def write(self, weight: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        return self.shift(weight - weight.mean(0))


class MeanFilled(Padded):
    """For norms that subtract the mean, where writes cannot be centred: new channels hold the mean of the old ones.

    Old channels keep their values, so that the embedding may be the head as well, and layer scales may differ: the
    mean is that of what reaches the stream.
    """

    how = "new channels hold the mean"

    def write(self, weight: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        if scale is None:
            mean = weight.mean(0)
        else:
            # It is 0 in a block that is new and was not trained.
            of_new = scale.abs().mean().clamp_min(torch.finfo(scale.dtype).tiny)
            mean = torch.tensordot(scale, weight, dims=1) / (len(weight) * of_new)
        return torch.cat([weight, mean.expand(self.extra, *mean.shape)])

    def depthwise(self, weight: torch.Tensor) -> torch.Tensor:
        # The norm behind it subtracts what all channels have.
        return self.shift(weight - weight.mean(0) if weight.dim() == 1 else weight)


class Isometric(Padded):
    """For a stream whose channels are compared: y′ = (y − m + m√r, m√r, …) with m the mean of y has its length.

    The mean is m√r, so that the variance is r times the old one, and products of two such vectors are the old ones.
    """

    how = "the embedding turns, lengths and angles stay"

    def write(self, weight: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        mean = weight.mean(0)
        moved = mean * self.epsilon_scale**0.5
        return torch.cat([weight - mean + moved, moved.expand(self.extra, *mean.shape)])

    def raw_read(self, weight: torch.Tensor) -> torch.Tensor:
        """Turned as what it reads, plus what no turned vector shows: new channels are equal and have to differ."""
        return self.write(weight.T).T + self.silent_raw_read(len(weight), root_mean_square(weight))

    def silent_raw_read(self, units: int, scale: float) -> torch.Tensor:
        turn = self.write(torch.eye(self.old, dtype=torch.float64))
        noise = normal(self.generator, units, self.old + self.extra) * scale
        return noise - noise @ turn @ turn.T
