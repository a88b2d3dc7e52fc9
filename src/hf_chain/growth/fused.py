"""Fused weights: taken apart into parts of one kind each, which grow on their own, and put together again."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hf_chain.families import Heads


class Layout:
    """How the parts of one weight lie along its fused axis, if it has one.

    Args:
        axes (`tuple[str, ...]`): Names of the weight's axes. `query|key|value` follow each other, `query/key/value`
            alternate from head to head, `mlp|mlp` and `residual|residual` are equal parts, `mlp/mlp` alternate from
            unit to unit.
        heads (`Heads`): Attention heads of the model.
        shape (`Sequence[int]`): Shape of the weight in this model.
    """

    def __init__(self, axes: Sequence[str], heads: Heads, shape: Sequence[int]) -> None:
        self.axes, self.shape = tuple(axes), tuple(shape)
        self.fused = next((number for number, axis in enumerate(axes) if "|" in axis or "/" in axis), None)
        if self.fused is None:
            return
        name = self.axes[self.fused]
        self.names = name.replace("/", "|").split("|")
        self.alternate = "/" in name
        self.sizes = [self._size(part, heads, shape[self.fused]) for part in self.names]
        # From head to head, or from unit to unit.
        self.step = heads.size if "query" in self.names else 1

    def _size(self, part: str, heads: Heads, whole: int) -> int:
        if part in ("query", "key", "value"):
            return heads.size * (heads.number if part == "query" else heads.key_value)
        return whole // len(self.names)

    @property
    def parts(self) -> list[tuple[str, ...]]:
        """Axes of every part."""
        if self.fused is None:
            return [self.axes]
        return [(*self.axes[: self.fused], name, *self.axes[self.fused + 1 :]) for name in self.names]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shapes of every part."""
        if self.fused is None:
            return [self.shape]
        return [(*self.shape[: self.fused], size, *self.shape[self.fused + 1 :]) for size in self.sizes]

    def split(self, weight: torch.Tensor) -> list[torch.Tensor]:
        """The parts of a weight."""
        if self.fused is None:
            return [weight]
        if self.alternate:
            pieces = weight.unflatten(self.fused, (-1, len(self.names), self.step))
            return [piece.flatten(self.fused, self.fused + 1) for piece in pieces.unbind(self.fused + 1)]
        return list(weight.split(self.sizes, self.fused))

    def join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The weight of these parts, of any sizes."""
        if self.fused is None:
            return parts[0]
        if self.alternate:
            pieces = [part.unflatten(self.fused, (-1, self.step)) for part in parts]
            return torch.stack(pieces, self.fused + 1).flatten(self.fused, self.fused + 2)
        return torch.cat(list(parts), self.fused)
