"""The sigmoid loss and its gradients are those of the whole matrix, in blocks and in processes, which keep none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import logsigmoid
from transformers import SiglipConfig, SiglipModel

from hf_chain.losses import contrastive, sigmoid_loss
from support import pair_losses
from support.pair_losses import DISTINCT, PAIRS, SETS, WIDTH, most_numbers, over_processes, with_gradients


def batch(distinct: int | None, rows: int = PAIRS, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """The same, with a logit bias."""
    *embedded, ids = pair_losses.batch(distinct, rows, dtype)
    return [*embedded, torch.tensor([-3.0], dtype=dtype).requires_grad_(), ids]


def formula(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """Algorithm 1 of SigLIP, averaged over the caption sets."""
    losses = []
    for k in range(texts.shape[1]):
        belongs = 2.0 * (ids[:, k, None] == ids[None, :, k]) - 1
        losses.append(-logsigmoid(belongs * (scale * images @ texts[:, k].T + bias)).sum() / len(images))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("block", [1, 5 * PAIRS, 1 << 22])
@pytest.mark.parametrize("distinct", DISTINCT)
def test_loss_and_gradients_are_those_of_the_whole_matrix(
    distinct: int | None, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "LARGEST_BLOCK", block)
    inputs = batch(distinct)
    expected = with_gradients(formula(*inputs), inputs)
    torch.testing.assert_close(with_gradients(3 * sigmoid_loss(*inputs), inputs), [3 * part for part in expected])


@pytest.mark.parametrize("frozen", range(4))
def test_what_is_frozen_has_no_gradient_and_the_rest_keeps_its_own(frozen: int) -> None:
    inputs = batch(6)
    _, *expected = with_gradients(formula(*inputs), inputs)
    inputs[frozen].requires_grad_(False)
    _, *found = with_gradients(sigmoid_loss(*inputs), inputs)
    torch.testing.assert_close(found, [part for place, part in enumerate(expected) if place != frozen])


def test_with_one_caption_it_is_that_of_transformers() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text, vision = sizes | {"vocab_size": 40}, sizes | {"image_size": 16, "patch_size": 8}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    with torch.no_grad():
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-4.0)
        stock = model(torch.randint(40, (6, 8)), torch.randn(6, 3, 16, 16), return_loss=True)
    found = sigmoid_loss(stock.image_embeds, stock.text_embeds[:, None], model.logit_scale.exp(), model.logit_bias)
    torch.testing.assert_close(found, stock.loss)


def test_no_more_logits_than_a_block_are_made_and_none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = 512
    monkeypatch.setattr(contrastive, "LARGEST_BLOCK", 50 * rows)
    made, kept = most_numbers(sigmoid_loss, batch(6, rows))
    assert made <= 2 * 50 * rows < rows * rows
    assert kept == rows * SETS * WIDTH


@pytest.mark.parametrize("distinct", DISTINCT[:2])
def test_over_processes_it_is_the_loss_of_the_global_batch(distinct: int | None, tmp_path: Path) -> None:
    inputs = batch(distinct)
    expected = with_gradients(formula(*inputs), inputs)
    torch.testing.assert_close(over_processes(sigmoid_loss, inputs, tmp_path), expected)
