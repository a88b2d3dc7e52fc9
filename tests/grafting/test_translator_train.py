"""Training lowers its objective, moves every weight of the translator and no other, and runs no more than it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.translator import TranslatorConfig, fit_translator, perplexity, splice_error
from hf_chain.grafting.translator.objectives import hidden_loss, lm_loss, logits_loss
from hf_chain.grafting.translator.splice import splices
from support.decoders import some_tokens
from support.translators import changed_weights, some_text, target_and_surrogate, text_batch, weights_of


def config(folder: Path, **fields: Any) -> TranslatorConfig:
    values = {"num_train_epochs": 12, "learning_rate": 3e-3, "use_cpu": True, "disable_tqdm": True, "seed": 3}
    return TranslatorConfig(output_dir=str(folder), **(values | fields))


@pytest.mark.parametrize("objective", ["hidden", "logits", "lm"])
def test_objective_falls_and_only_translators_move(objective: str, tmp_path: Path) -> None:
    target, surrogate = target_and_surrogate(replaced="1-3,5-6")
    before, target_before = weights_of(surrogate), weights_of(target)
    report = fit_translator(surrogate, target, some_text(), f"train:{objective}", args=config(tmp_path))
    (training,) = report.trainings
    assert training.loss_after < 0.95 * training.loss_before
    assert training.tokens == 12 * 2 * 10 * 16
    assert changed_weights(surrogate, before) == {name for name in before if ".1." in name or ".3." in name}
    assert not changed_weights(target, target_before)
    assert all(weight.requires_grad and weight.grad is None for weight in surrogate.parameters())


def test_hidden_objective_runs_up_to_the_splice(tmp_path: Path) -> None:
    target, surrogate = target_and_surrogate()
    calls: list[nn.Module] = []
    for model, last in ((target, 4), (surrogate, 1)):
        for module in (decoder_layers(model)[last + 1], model.lm_head):
            module.register_forward_pre_hook(lambda module, inputs: calls.append(module))
    before = splice_error(surrogate, target, some_text())
    fit_translator(surrogate, target, some_text(), "train:hidden", args=config(tmp_path))
    assert not calls
    assert splice_error(surrogate, target, some_text()) < before


def test_accumulating_equals_a_larger_batch(tmp_path: Path) -> None:
    found = []
    for text, accumulated in ((some_text(1, rows=8), 1), (None, 2)):
        target, surrogate = target_and_surrogate()
        batches = text or [
            {k: v[rows] for k, v in some_text(1, rows=8)[0].items()} for rows in (slice(4), slice(4, 8))
        ]
        args = config(tmp_path, gradient_accumulation_steps=accumulated, max_steps=2, optim="sgd", learning_rate=1.0)
        fit_translator(surrogate, target, batches, "train:lm", args=args)
        found.append(weights_of(surrogate))
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=1e-4, atol=1e-6)


def losses(target: PreTrainedModel, surrogate: PreTrainedModel, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [
        hidden_loss(surrogate, surrogate, target, splices(surrogate), batch),
        logits_loss(surrogate, surrogate, target, batch),
        lm_loss(surrogate, surrogate, batch),
    ]


@torch.no_grad()
def test_losses_are_what_they_say_and_padding_does_not_count() -> None:
    target, surrogate = target_and_surrogate()
    batch = text_batch(some_tokens(3, 10))
    tokens = batch["input_ids"]
    both = [model(input_ids=tokens, output_hidden_states=True) for model in (target, surrogate)]
    t, s = both[0].hidden_states[5], both[1].hidden_states[2]
    hidden = ((s - t).square().sum(-1) / t.square().sum(-1)).mean()
    logs = [output.logits.log_softmax(-1) for output in both]
    logits = (logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean()
    lm = cross_entropy(both[1].logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    padded = {name: torch.cat([value, torch.zeros_like(value)], dim=1) for name, value in batch.items()}
    for text in (batch, padded):
        torch.testing.assert_close(losses(target, surrogate, text), [hidden, logits, lm])
    assert perplexity(surrogate, [padded]) == pytest.approx(lm.exp().item())


@torch.no_grad()
def test_labels_say_which_tokens_are_predicted() -> None:
    _, surrogate = target_and_surrogate()
    batch = text_batch(some_tokens(2, 10))
    batch["labels"] = batch["input_ids"].clone()
    batch["labels"][:, :6] = -100
    expected = surrogate(**batch).loss
    torch.testing.assert_close(lm_loss(surrogate, surrogate, batch), expected)
    assert perplexity(surrogate, [batch]) == pytest.approx(expected.exp().item())


def test_half_precision_is_trained_in_float32(tmp_path: Path) -> None:
    target, surrogate = target_and_surrogate()
    target, surrogate = target.bfloat16(), surrogate.bfloat16()
    with pytest.raises(HfChainError, match="set bf16=True"):
        fit_translator(surrogate, target, some_text(), "train", args=config(tmp_path))
    before = weights_of(surrogate)
    (training,) = fit_translator(surrogate, target, some_text(), "train", args=config(tmp_path, bf16=True)).trainings
    assert training.loss_after < training.loss_before
    assert {weight.dtype for weight in surrogate.parameters()} == {torch.bfloat16}
    assert changed_weights(surrogate, before) <= {name for name in before if ".1." in name}
    (training,) = fit_translator(surrogate, target, some_text(), "train").trainings
    assert training.steps, "without arguments they are those that the precision needs"
    assert "forward" not in vars(surrogate)


def test_bad_input(tmp_path: Path) -> None:
    target, surrogate = target_and_surrogate()
    with pytest.raises(HfChainError, match="objective='mse' is unknown: use one of hidden, logits, lm"):
        config(tmp_path, objective="mse")
    with pytest.raises(HfChainError, match="per_device_train_batch_size=8"):
        config(tmp_path, per_device_train_batch_size=8)
    with pytest.raises(HfChainError, match="no text to train the translator on"):
        fit_translator(surrogate, target, [], "train")
    with pytest.raises(HfChainError, match="lm loss is nan .* lower learning_rate=1e"):
        args = config(tmp_path, learning_rate=1e38, max_grad_norm=0, optim="sgd", lr_scheduler_type="constant")
        fit_translator(surrogate, target, some_text(), "train:lm", args=args)
