"""The contrastive loss and its gradients are those of the formula, in blocks and in processes, and keep no logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hf_chain.losses import contrastive, contrastive_loss
from support.pair_losses import DISTINCT, PAIRS, SETS, WIDTH, batch, most_numbers, over_processes, with_gradients


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


@pytest.mark.parametrize("distinct", DISTINCT)
def test_no_more_logits_than_a_block_are_made_and_none_is_kept(
    distinct: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 512
    monkeypatch.setattr(contrastive, "LARGEST_BLOCK", 50 * rows)
    made, kept = most_numbers(contrastive_loss, batch(distinct, rows))
    # The place of a positive is two numbers.
    assert made <= 2 * 50 * rows < rows * rows
    assert kept == rows * SETS * WIDTH


@pytest.mark.parametrize("distinct", DISTINCT)
def test_over_processes_it_is_the_loss_of_the_global_batch(distinct: int | None, tmp_path: Path) -> None:
    inputs = batch(distinct)
    expected = with_gradients(formula(*inputs), inputs)
    torch.testing.assert_close(over_processes(contrastive_loss, inputs, tmp_path), expected)
