"""Embeddings and measurements for the tests of losses over pairs: in blocks, in processes, without a whole matrix."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

Loss = Callable[..., torch.Tensor]
PAIRS, SETS, WIDTH, PROCESSES = 24, 3, 16, 2
DISTINCT = [pytest.param(None, id="all differ"), 6, 2, pytest.param(1, id="all equal")]


def batch(distinct: int | None, rows: int = PAIRS, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """Embeddings, logit scale and ids of which `distinct` differ in a set."""
    generator = torch.Generator().manual_seed(rows)
    images = normalize(torch.randn(rows, WIDTH, generator=generator, dtype=dtype), dim=-1)
    texts = normalize(torch.randn(rows, SETS, WIDTH, generator=generator, dtype=dtype), dim=-1)
    ids = torch.arange(rows * SETS).view(rows, SETS)
    if distinct:
        ids = torch.randint(distinct, (rows, SETS), generator=generator)
    return [images.requires_grad_(), texts.requires_grad_(), torch.tensor([20.0], dtype=dtype).requires_grad_(), ids]


def with_gradients(loss: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The loss and its gradients."""
    return [loss.detach(), *torch.autograd.grad(loss, [tensor for tensor in inputs if tensor.requires_grad])]


class Largest(TorchDispatchMode):
    """Keeps the most numbers that a tensor had."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls the operator and looks at what it makes."""
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


def _part_of_the_batch(loss: Loss, rank: int, inputs: list[torch.Tensor], folder: Path) -> None:
    """What each process does: the loss of its own rows, and their gradients averaged over processes as engines do."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    own = slice(rank * PAIRS // PROCESSES, (rank + 1) * PAIRS // PROCESSES)
    mine = [
        (tensor.detach()[own] if len(tensor) == PAIRS else tensor.detach()).requires_grad_(tensor.requires_grad)
        for tensor in inputs
    ]
    torch.save(with_gradients(loss(*mine), mine), folder / f"{rank}.pt")
    dist.destroy_process_group()


def over_processes(loss: Loss, inputs: list[torch.Tensor], folder: Path) -> list[torch.Tensor]:
    """Mean of the loss over processes with a part of the rows each, and the gradients that engines make of it."""
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_part_of_the_batch, args=(loss, rank, inputs, folder)) for rank in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    parts = zip(*(torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)), strict=True)
    whole = [1 if tensor.dim() and len(tensor) == PAIRS else 0 for tensor in [torch.zeros(()), *inputs]]
    return [
        (torch.cat(values) if rows else sum(values)) / PROCESSES  # type: ignore[arg-type]
        for values, rows in zip(parts, whole, strict=False)
    ]


def most_numbers(loss: Loss, inputs: list[torch.Tensor]) -> tuple[int, int]:
    """Numbers of the largest tensor that a loss and its gradients make, and of the largest that is kept in between."""
    saved: list[int] = []
    with (
        Largest() as largest,
        torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
        ),
    ):
        loss(*inputs).backward()
    return largest.numbers, max(saved)
