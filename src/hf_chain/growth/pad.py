"""Width by padding, any D′ > D: old channels stay what they are, new ones are zero behind every norm."""

from __future__ import annotations

import torch

from hf_chain.growth.width import joined, normal, root_mean_square


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
        return joined(weight, weight.new_zeros(self.extra, *weight.shape[1:]))

    def depthwise(self, weight: torch.Tensor) -> torch.Tensor:
        return self.shift(weight)

    def scale(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight, weight.abs().mean().expand(self.extra)])

    first_gain = gain
    first_shift = shift

    def read(self, weight: torch.Tensor) -> torch.Tensor:
        fresh = normal(self.generator, len(weight), self.extra, scale=root_mean_square(weight))
        return torch.cat([weight, fresh], dim=1)

    def read_mean(self, weight: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        # Random, and yet blind to what all new channels have.
        noise = normal(self.generator, len(weight), self.extra, scale=root_mean_square(weight))
        return torch.cat([weight, share[:, None] + noise - noise.mean(1, keepdim=True)], dim=1)

    def silent_read(self, units: int, scale: float) -> torch.Tensor:
        fresh = normal(self.generator, units, self.extra, scale=scale)
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
        return joined(weight, mean.expand(self.extra, *mean.shape))

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
        noise = normal(self.generator, units, self.old + self.extra, scale=scale)
        return noise - noise @ turn @ turn.T


# Size s of what new channels put into the first norm, in units of its output mean. The error of the rule grows with
# s², the new gains with 1/s.
FILL = 0.25


class PaddedBehindNorm(MeanFilled):
    """As `MeanFilled`, where the stream is the affine output of a norm, y = γn(x) + β, whose mean no row can hold.

    With centred x that mean is t(x)/std(x) + mean(β), where t(x) = (1/D) Σ γ_i x_i is linear in x. New channel j
    therefore puts c_j·t(x) into the norm, with Σ c_j = 0, and leaves it with gain √r/c_j and offset mean(β). The mean
    is exact; the variance of the first norm grows by t²Σc²/(Dσ²), the only error. A constant fill leaves t out.

    Args:
        old (`int`): D.
        new (`int`): D′.
        generator (`torch.Generator`): the source of the new reads.
        gain (`torch.Tensor`): γ of the first norm, `[D]`.
    """

    how = "zeros are added behind the first norm: close, not exact"

    def __init__(self, old: int, new: int, generator: torch.Generator, gain: torch.Tensor) -> None:
        super().__init__(old, new, generator)
        self.mean_row = gain / old
        self.fill = _fill(self.extra)

    def embed(self, weight: torch.Tensor) -> torch.Tensor:
        centred = weight - weight.mean(0)
        mean = torch.tensordot(self.mean_row, centred, dims=1)
        filled = self.fill.reshape(-1, *[1] * mean.dim()) * mean
        return torch.cat([centred - self.fill.sum() / self.old * mean, filled])

    def first_gain(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight, 1 / self.fill]) * self.epsilon_scale**0.5

    def first_shift(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.cat([weight, weight.mean().expand(self.extra)])


def _fill(extra: int) -> torch.Tensor:
    """c_j of the new channels: (s, −s) pairs, for an odd number one triple (2s, −s, −s); one channel alone has s."""
    signs = [2.0, -1.0, -1.0] if extra % 2 and extra > 1 else [1.0][: extra % 2]
    signs += [1.0, -1.0] * ((extra - len(signs)) // 2)
    return torch.tensor(signs, dtype=torch.float64) * FILL
