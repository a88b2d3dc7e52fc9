"""What a larger width does to weights on the residual axis, and tiling, its rule for multiples."""

from __future__ import annotations

from typing import Protocol

import torch


class WidthRule(Protocol):
    """How every kind of weight on the residual axis grows.

    All weights come with the residual axis *first*, except in `read` and `silent_read`, which take the
    `[units, residual]` layout of `torch.nn.Linear`. Rules for streams that are read without a norm in front have
    `raw_read` and `silent_raw_read` as well.
    """

    how: str
    """The rule in a few words."""
    epsilon_scale: float
    """What the epsilon of norms is multiplied with."""
    head_scale: float
    """What the last norm is multiplied with where the embedding is also the head."""

    def embed(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight `[D, …]` that puts the input into the stream, as `[D′, …]`."""

    def write(self, weight: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        """A weight or bias `[D, …]` by which a block adds to the stream, as `[D′, …]`.

        `scale` is what each of its channels is multiplied with on the way, `[D]`, where there is a layer scale.
        """

    def probe(self, weight: torch.Tensor) -> torch.Tensor:
        """A constant `[D, …]` that is read in place of the stream, as `[D′, …]`."""

    def gain(self, weight: torch.Tensor) -> torch.Tensor:
        """A norm's scale `[D]`, as `[D′]`."""

    def shift(self, weight: torch.Tensor) -> torch.Tensor:
        """A norm's offset `[D]`, as `[D′]`."""

    def depthwise(self, weight: torch.Tensor) -> torch.Tensor:
        """A convolution of each channel, or its bias, `[D, …]`, as `[D′, …]`."""

    def scale(self, weight: torch.Tensor) -> torch.Tensor:
        """A layer scale `[D]`, as `[D′]`."""

    def first_gain(self, weight: torch.Tensor) -> torch.Tensor:
        """The scale `[D]` of a norm that stands before the first block, as `[D′]`."""

    def first_shift(self, weight: torch.Tensor) -> torch.Tensor:
        """The offset `[D]` of a norm that stands before the first block, as `[D′]`."""

    def read(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight `[units, D]` that reads the stream, as `[units, D′]`."""

    def read_mean(self, weight: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """As `read`, where new channels may hold the mean of the old ones: it is read by `share`, `[units]`."""

    def silent_read(self, units: int, scale: float) -> torch.Tensor:
        """New units `[units, D′]` that read (almost) nothing at the start, yet learn; `scale` is σ of the old ones."""


def root_mean_square(weight: torch.Tensor) -> float:
    """σ of a weight, a number."""
    return torch.linalg.vector_norm(weight).item() / weight.numel() ** 0.5


def normal(generator: torch.Generator, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """Normal numbers of this shape and spread in float64, as fine as those of float32, drawn twice as fast."""
    # In place here and below: new memory costs more than the arithmetic.
    return torch.randn(*shape, generator=generator).double().mul_(scale)


def times(weight: torch.Tensor, factor: float) -> torch.Tensor:
    """A weight times a factor, which is 1 for most."""
    return weight if factor == 1 else weight * factor


def joined(*parts: torch.Tensor) -> torch.Tensor:
    """Parts one after the other along the first axis, in memory as the first of them: an embedding is on its side."""
    first = parts[0]
    if first.dim() == 2 and first.T.is_contiguous() and not first.is_contiguous():
        return torch.cat([part.T for part in parts], dim=1).T
    return torch.cat(parts)


# Relative size of the random part that tells the k copies of a channel apart; at 1 a grown read has the spread of a
# fresh one with its fan-in. The parts of the k copies add up to zero, so the function does not depend on the number.
SYMMETRY_NOISE = 1.0

# Relative size of new embedding coordinates in a tower that keeps its width and so has no silent direction for them.
# They enter the normalised embedding by half its square, 5e-11.
FAINT_COORDINATE = 1e-5


class Tiled:
    """Writes and norms are repeated; a read R becomes k column blocks R/k + N_j with random N_j and Σ_j N_j = 0.

    HyperCloning (arXiv 2409.12903) with the symmetry of the copies broken. With k = 1 it changes nothing.

    Args:
        old (`int`): D.
        new (`int`): D′, a multiple of D.
        generator (`torch.Generator`): The source of the noise.
    """

    how = "channels are repeated"
    epsilon_scale = 1.0

    def __init__(self, old: int, new: int, generator: torch.Generator) -> None:
        self.width = old
        self.copies = new // old
        self.head_scale = 1 / self.copies
        self.generator = generator

    def embed(self, weight: torch.Tensor) -> torch.Tensor:
        return joined(*[weight] * self.copies)

    probe = gain = shift = scale = depthwise = first_gain = first_shift = embed

    def write(self, weight: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        return self.embed(weight)

    def read(self, weight: torch.Tensor) -> torch.Tensor:
        if self.copies == 1:
            return weight
        noise = self._cancelling(len(weight), root_mean_square(weight) * SYMMETRY_NOISE)
        return noise.add_((weight / self.copies).repeat(1, self.copies))

    def read_mean(self, weight: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        return self.read(weight)

    def silent_read(self, units: int, scale: float) -> torch.Tensor:
        if self.copies == 1:
            return normal(self.generator, units, self.width, scale=scale * FAINT_COORDINATE)
        return self._cancelling(units, scale)

    raw_read, silent_raw_read = read, silent_read

    def _cancelling(self, units: int, scale: float) -> torch.Tensor:
        """Random `[units, kD]` whose k column blocks add up to zero, so that it reads nothing from equal copies."""
        noise = normal(self.generator, units, self.copies, self.width, scale=scale / self.copies**0.5)
        return noise.sub_(noise.mean(1, keepdim=True)).flatten(1)
