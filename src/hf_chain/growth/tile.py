"""Width by tiling, D′ = kD: the residual stream is repeated k times, and every norm sees the statistics it knows."""

from __future__ import annotations

import torch

from hf_chain.growth.width import normal, root_mean_square

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
        return torch.cat([weight] * self.copies)

    probe = gain = shift = scale = depthwise = first_gain = first_shift = embed

    def write(self, weight: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        return self.embed(weight)

    def read(self, weight: torch.Tensor) -> torch.Tensor:
        if self.copies == 1:
            return weight
        noise = self._cancelling(len(weight), root_mean_square(weight) * SYMMETRY_NOISE)
        return (weight / self.copies).repeat(1, self.copies) + noise

    def read_mean(self, weight: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        return self.read(weight)

    def silent_read(self, units: int, scale: float) -> torch.Tensor:
        if self.copies == 1:
            return normal(self.generator, units, self.width) * scale * FAINT_COORDINATE
        return self._cancelling(units, scale)

    raw_read, silent_raw_read = read, silent_read

    def _cancelling(self, units: int, scale: float) -> torch.Tensor:
        """Random `[units, kD]` whose k column blocks add up to zero, so that it reads nothing from equal copies."""
        noise = normal(self.generator, units, self.copies, self.width)
        return ((noise - noise.mean(1, keepdim=True)) * scale / self.copies**0.5).flatten(1)
