"""The contrastive loss and its gradients are those of the formula, in blocks and in processes, and keep no logits."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from hf_chain.losses import contrastive, contrastive_loss

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


def formula(images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The loss of docs/method.md, row by row."""
    losses = []
    for k in range(texts.shape[1]):
        logits = scale * images @ texts[:, k].T
        for row, column in (ids[:, k, None] == ids[None, :, k]).nonzero().tolist():
            same = ids[:, k] == ids[row, k]
            for line in (logits[row], logits[:, row]):
                against = torch.cat([line[column, None], line[~same]])
                losses.append((against.logsumexp(0) - line[column]) / same.sum())
    return torch.stack(losses).sum() / (2 * texts.shape[1] * len(images))


def with_gradients(loss: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The loss and its gradients."""
    return [loss.detach(), *torch.autograd.grad(loss, [tensor for tensor in inputs if tensor.requires_grad])]


@pytest.mark.parametrize("block", [1, 5 * PAIRS, 1 << 22])
@pytest.mark.parametrize("distinct", DISTINCT)
def test_loss_and_gradients_are_those_of_the_formula(
    distinct: int | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "LARGEST_BLOCK", block)
    inputs = batch(distinct)
    expected = with_gradients(formula(*inputs), inputs)
    torch.testing.assert_close(with_gradients(3 * contrastive_loss(*inputs), inputs), [3 * part for part in expected])


def test_without_ids_only_the_diagonal_is_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrastive, "LARGEST_BLOCK", 5 * PAIRS)
    inputs = batch(None)
    expected = with_gradients(formula(*inputs), inputs)
    torch.testing.assert_close(with_gradients(contrastive_loss(*inputs[:3]), inputs), expected)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_has_no_gradient_and_the_rest_keeps_its_own(frozen: int) -> None:
    inputs = batch(6)
    _, *expected = with_gradients(formula(*inputs), inputs)
    inputs[frozen].requires_grad_(False)
    _, *found = with_gradients(contrastive_loss(*inputs), inputs)
    torch.testing.assert_close(found, [part for place, part in enumerate(expected) if place != frozen])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_it_is_close_and_computed_in_float32(dtype: torch.dtype) -> None:
    inputs = batch(6)
    expected = with_gradients(formula(*inputs), inputs)
    halves = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs[:3]]
    loss, *gradients = with_gradients(contrastive_loss(*halves, inputs[3]), halves)
    assert loss.dtype == torch.float32 and {gradient.dtype for gradient in gradients} == {dtype}
    for found, right in zip((loss, *gradients), expected, strict=True):
        assert (found - right).norm() < 0.02 * right.norm()


class Largest(TorchDispatchMode):
    """Keeps the most numbers that a tensor had."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls the operator and looks at what it makes."""
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


@pytest.mark.parametrize("distinct", DISTINCT)
def test_no_more_logits_than_a_block_are_made_and_none_is_kept(
    distinct: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 512
    monkeypatch.setattr(contrastive, "LARGEST_BLOCK", 50 * rows)
    inputs, saved = batch(distinct, rows), []
    with (
        Largest() as largest,
        torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
        ),
    ):
        contrastive_loss(*inputs).backward()
    # The place of a positive is two numbers.
    assert largest.numbers <= 2 * 50 * rows < rows * rows
    assert max(saved) == rows * SETS * WIDTH


def part_of_the_batch(rank: int, distinct: int | None, folder: Path) -> None:
    """What each process does: the loss of its own rows, and their gradients averaged over processes as engines do."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    whole = batch(distinct)
    own = slice(rank * PAIRS // PROCESSES, (rank + 1) * PAIRS // PROCESSES)
    inputs = [tensor.detach()[own].requires_grad_(tensor.is_floating_point()) for tensor in (*whole[:2], whole[3])]
    inputs.insert(2, whole[2])
    loss, *gradients = with_gradients(contrastive_loss(*inputs), inputs)
    torch.save([loss, *gradients], folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("distinct", DISTINCT)
def test_over_processes_it_is_the_loss_of_the_global_batch(distinct: int | None, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=part_of_the_batch, args=(rank, distinct, tmp_path)) for rank in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(PROCESSES)]
    inputs = batch(distinct)
    loss, images, texts, scale = with_gradients(formula(*inputs), inputs)
    torch.testing.assert_close(sum(part[0] for part in parts) / PROCESSES, loss)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]) / PROCESSES, images)
    torch.testing.assert_close(torch.cat([part[2] for part in parts]) / PROCESSES, texts)
    torch.testing.assert_close(sum(part[3] for part in parts) / PROCESSES, scale)
