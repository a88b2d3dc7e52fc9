"""Concatenates a tensor over all processes, with gradients flowing back to the process it came from."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class _AllGather(torch.autograd.Function):
    """`all_gather` whose backward sums what every process wants of this one's rows."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        ctx.rows = tensor.shape[0]
        return _concatenate(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        # An all-reduce instead of a reduce-scatter, which gloo lacks.
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient.narrow(0, dist.get_rank() * ctx.rows, ctx.rows)


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Rows of all processes, in rank order; the tensor itself when there is one process.

    Every process computes its own part of a loss whose mean over processes is the loss of the global batch. As the
    engines average gradients over processes, summing in the backward pass gives exactly the global batch's gradient.

    Args:
        tensor (`torch.Tensor`): shape `[B, ...]`, with the same `B` on every process.

    Returns:
        `torch.Tensor`: shape `[world size × B, ...]`.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return tensor
    return _AllGather.apply(tensor) if tensor.requires_grad else _concatenate(tensor)


def _concatenate(tensor: torch.Tensor) -> torch.Tensor:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def process_rank() -> int:
    """Rank of this process, 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
