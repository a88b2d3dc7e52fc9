"""What a width rule is: how a residual stream of D channels becomes one of D′ and its blocks compute the same.

Notation in this room: D → D′ is the width, r = D/D′, k = D′/D, σ the root mean square of a weight.
"""

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


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Standard normal numbers of this shape in float64, as fine as those of float32, which are drawn twice as fast."""
    return torch.randn(*shape, generator=generator).double()
