"""Padding behind a norm that stands before the first block (CLIP's vision tower): close, not exact."""

from __future__ import annotations

import torch

from hf_chain.growth.pad import MeanFilled

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
