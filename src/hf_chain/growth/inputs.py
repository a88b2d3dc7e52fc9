"""What a model takes in: longer vocabularies, longer contexts and finer grids of patches."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import interpolate


def longer(weight: torch.Tensor, axis: int, size: int, kind: str) -> torch.Tensor:
    """A weight with more rows along one of its axes.

    Args:
        weight (`torch.Tensor`): An embedding.
        axis (`int`): Number of the axis.
        size (`int`): Rows of the successor.
        kind (`str`): New words of a `vocab` start as the mean of the old ones, a longer `position` axis goes on with
            its last row, and a `grid` of patches, behind its class tokens, is interpolated (bicubic).
    """
    old = weight.shape[axis]
    if size == old:
        return weight
    rows = weight.movedim(axis, 0)
    if kind == "grid":
        return _resized(rows.flatten(1), size).view(size, *rows.shape[1:]).movedim(0, axis)
    new = rows.mean(0) if kind == "vocab" else rows[-1]
    return torch.cat([rows, new.expand(size - old, *new.shape)]).movedim(0, axis)


def _resized(rows: torch.Tensor, size: int) -> torch.Tensor:
    """Positions `[class tokens + side², D]` on a grid of another side."""
    side, new_side = math.isqrt(len(rows)), math.isqrt(size)
    classes = len(rows) - side**2
    grid = rows[classes:].view(1, side, side, -1).permute(0, 3, 1, 2)
    finer = interpolate(grid, size=(new_side, new_side), mode="bicubic", align_corners=False)
    return torch.cat([rows[:classes], finer.permute(0, 2, 3, 1).reshape(new_side**2, -1)])
