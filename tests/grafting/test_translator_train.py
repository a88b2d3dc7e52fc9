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
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.translator import (
    TranslatorConfig,
    TranslatorTrainer,
    fit_translator,
    perplexity,
    splice_error,
)
from hf_chain.grafting.translator.objectives import counted_tokens, gradients_loss, hidden_loss, lm_loss, logits_loss
from hf_chain.grafting.translator.refit import layer_writes
from hf_chain.grafting.translator.splice_error import splices
from hf_chain.grafting.translator.train import train
from support.decoders import some_tokens, tiny_decoder
from support.translators import changed_weights, silence, some_text, target_and_surrogate, text_batch, weights_of


def config(folder: Path, **fields: Any) -> TranslatorConfig:
    values = {"num_train_epochs": 12, "learning_rate": 3e-3, "use_cpu": True, "disable_tqdm": True, "seed": 3}
    return TranslatorConfig(output_dir=str(folder), **(values | fields))


@pytest.mark.parametrize("objective", ["hidden", "logits", "lm", "gradients"])
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


@pytest.mark.parametrize("objective", ["hidden", "logits", "lm", "gradients"])
def test_accumulating_equals_a_larger_batch(objective: str, tmp_path: Path) -> None:
    """Also where batches differ in their number of tokens, and one has none to predict."""
    (whole,) = some_text(1, rows=8)
    whole["attention_mask"][3:, 6:] = 0
    whole["labels"] = whole["input_ids"].clone()
    whole["labels"][6:] = -100
    parts = [{name: value[rows] for name, value in whole.items()} for rows in (slice(3), slice(3, 6), slice(6, 8))]
    found = []
    for batches in ([whole], parts):
        target, surrogate = target_and_surrogate()
        fields = {"max_steps": 1, "optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0, "warmup_steps": 0}
        args = config(tmp_path, gradient_accumulation_steps=len(batches), **fields)
        (training,) = fit_translator(surrogate, target, batches, f"train:{objective}", args=args).trainings
        assert training.tokens == int(whole["attention_mask"].sum())
        found.append(weights_of(surrogate))
    before = weights_of(target_and_surrogate()[1])
    moved = [name for name, weight in found[0].items() if not torch.equal(weight, before[name])]
    assert moved
    for name in moved:
        step = found[0][name] - before[name]
        torch.testing.assert_close(found[1][name] - before[name], step, rtol=1e-3, atol=1e-3 * step.abs().max().item())


def gradients_at(model: PreTrainedModel, layer: int, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """What the loss of a batch sends back to the input of a layer, by a hook on the whole model."""
    found: list[torch.Tensor] = []
    with torch.enable_grad():
        embeds = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
        hook = decoder_layers(model)[layer].register_forward_pre_hook(
            lambda _, inputs: inputs[0].register_hook(lambda gradient: found.append(gradient)) and None
        )
        logits = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits
        hook.remove()
        cross_entropy(logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="sum").backward()
    return found[0]


def test_gradients_are_those_that_reach_the_layers_before(tmp_path: Path) -> None:
    target, surrogate = target_and_surrogate(replaced="2-4")
    batch = some_text(1)[0]
    silence(target, range(2, 5))
    silence(surrogate, range(2, 3))
    assert gradients_loss(surrogate, surrogate, target, splices(surrogate), batch).item() < 1e-8
    target, surrogate = target_and_surrogate(replaced="2-4")
    ours, theirs = (gradients_at(model, 2, batch).flatten(1) for model in (surrogate, target))
    apart = ((ours - theirs).square().sum(1) / theirs.square().sum(1) * 16).sum()
    hidden = hidden_loss(surrogate, surrogate, target, splices(surrogate), batch)
    both = gradients_loss(surrogate, surrogate, target, splices(surrogate), batch)
    torch.testing.assert_close(both, apart + hidden)


def test_a_translator_trained_for_gradients_sends_back_what_the_target_does(tmp_path: Path) -> None:
    apart = {}
    for objective in ("hidden", "gradients"):
        target, surrogate = target_and_surrogate(replaced="2-4")
        args = config(tmp_path / objective, num_train_epochs=30)
        fit_translator(surrogate, target, some_text(), f"train:{objective}", args=args)
        ours, theirs = (gradients_at(model, 2, some_text(1)[0]) for model in (surrogate, target))
        apart[objective] = ((ours - theirs).norm() / theirs.norm()).item()
    assert apart["gradients"] < 0.9 * apart["hidden"]


def test_gradients_need_a_layer_before(tmp_path: Path) -> None:
    target, surrogate = target_and_surrogate(replaced="0-3")
    with pytest.raises(HfChainError, match="layer 0 is replaced, and there is no state before it"):
        fit_translator(surrogate, target, some_text(), "train:gradients", args=config(tmp_path))


@pytest.mark.parametrize("objective", ["hidden", "lm"])
@pytest.mark.parametrize("model_type", ["llama", "opt"])
def test_forgotten_activations_change_nothing_but_the_cost(objective: str, model_type: str, tmp_path: Path) -> None:
    """Of OPT's layers too, which would drop out."""
    found, macs = [], []
    for wished in (False, True):
        target, surrogate = target_and_surrogate(model_type, "0-1,3-5")
        runs = [0]
        inner = decoder_layers(surrogate)[1].get_submodule(layer_writes(surrogate.config).attention.projection)
        inner.register_forward_pre_hook(lambda *_, runs=runs: runs.__setitem__(0, runs[0] + 1))
        args = config(tmp_path, max_steps=2, gradient_checkpointing=wished)
        (training,) = fit_translator(surrogate, target, some_text(), f"train:{objective}", args=args).trainings
        assert runs == [4 if wished else 2]
        assert not any(getattr(module, "gradient_checkpointing", False) for module in surrogate.modules())
        assert {getattr(layer, "dropout", None) for layer in decoder_layers(surrogate)} <= {None, 0.1}
        found.append(weights_of(surrogate))
        macs.append(training.macs)
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight)
    assert macs[0] < macs[1] < 1.5 * macs[0], "a frozen layer costs two forwards, and now a third"


def test_evaluation_counts_as_none_of_the_training(tmp_path: Path) -> None:
    target, surrogate = target_and_surrogate()
    args = config(tmp_path, num_train_epochs=2, objective="logits")
    alone = train(surrogate, target, some_text(), args)
    target, surrogate = target_and_surrogate()
    watched = TranslatorTrainer(
        surrogate,
        target,
        config(tmp_path, num_train_epochs=2, objective="logits", eval_strategy="epoch"),
        some_text(),
        eval_dataset=some_text(1, seed=9),
    )
    for name, weight in surrogate.named_parameters():
        weight.requires_grad_(".1." in name)
    watched.train()
    assert watched.result() == alone
    losses = [entry["eval_loss"] for entry in watched.state.log_history if "eval_loss" in entry]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_a_resumed_training_is_the_whole_one(tmp_path: Path) -> None:
    def run(folder: Path, **fields: Any) -> tuple[Any, dict[str, torch.Tensor]]:
        target, surrogate = target_and_surrogate()
        args = config(folder, num_train_epochs=2, save_strategy="steps", save_steps=2, logging_steps=1, **fields)
        return train(surrogate, target, some_text(), args), weights_of(surrogate)

    whole, weights = run(tmp_path / "whole")
    resumed, again = run(tmp_path / "resumed", resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert (resumed.steps, resumed.tokens, resumed.macs) == (whole.steps, whole.tokens, whole.macs)
    assert resumed.loss_after == pytest.approx(whole.loss_after)
    for name, weight in weights.items():
        torch.testing.assert_close(again[name], weight)
    finished, _ = run(tmp_path / "finished", resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    assert (finished.steps, finished.tokens, finished.loss_before) == (whole.steps, whole.tokens, None)


def losses(target: PreTrainedModel, surrogate: PreTrainedModel, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    sums = {
        "hidden": hidden_loss(surrogate, surrogate, target, splices(surrogate), batch),
        "logits": logits_loss(surrogate, surrogate, target, batch),
        "lm": lm_loss(surrogate, surrogate, batch),
    }
    return [total / counted_tokens(objective, batch) for objective, total in sums.items()]


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_losses_are_what_they_say_and_padding_does_not_count(model_type: str) -> None:
    target, surrogate = target_and_surrogate(model_type)
    batch = text_batch(some_tokens(3, 10))
    tokens = batch["input_ids"]
    both = [model(input_ids=tokens, output_hidden_states=True) for model in (target, surrogate)]
    t, s = both[0].hidden_states[5], both[1].hidden_states[2]
    hidden = ((s - t).square().sum(-1) / t.square().sum(-1)).mean()
    logs = [output.logits.log_softmax(-1) for output in both]
    logits = (logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean()
    lm = cross_entropy(both[1].logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    right = {name: torch.cat([value, torch.zeros_like(value)], dim=1) for name, value in batch.items()}
    left = {name: torch.cat([torch.zeros_like(value), value], dim=1) for name, value in batch.items()}
    for text in (batch, right, left):
        torch.testing.assert_close(losses(target, surrogate, text), [hidden, logits, lm])
        assert perplexity(surrogate, [text]) == pytest.approx(lm.exp().item())
    error = splice_error(surrogate, target, [batch])
    assert splice_error(surrogate, target, [left]) == pytest.approx(error, rel=1e-5)


@torch.no_grad()
def test_labels_say_which_tokens_are_predicted() -> None:
    _, surrogate = target_and_surrogate()
    batch = text_batch(some_tokens(2, 10))
    batch["labels"] = batch["input_ids"].clone()
    batch["labels"][:, :6] = -100
    expected = surrogate(**batch).loss
    torch.testing.assert_close(lm_loss(surrogate, surrogate, batch) / counted_tokens("lm", batch), expected)
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
    assert changed_weights(surrogate, before) == {name for name in before if ".1." in name}
    (training,) = fit_translator(surrogate, target, some_text(), "train").trainings
    assert training.steps, "without arguments they are those that the precision needs"
    assert "forward" not in vars(surrogate)


def test_a_type_that_autocast_does_not_fit_is_float32_while_it_trains() -> None:
    """In GPT-2, layers of float16 take nothing in bfloat16."""
    target = tiny_decoder("gpt2").half()
    surrogate = build_surrogate(target, "2-5")
    before = weights_of(target)
    (training,) = fit_translator(surrogate, target, some_text(), "train").trainings
    assert training.steps and not changed_weights(target, before)
    assert {weight.dtype for model in (surrogate, target) for weight in model.parameters()} == {torch.float16}


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
    with pytest.raises(HfChainError, match="the text holds no token to predict"):
        text = [batch | {"labels": torch.full_like(batch["input_ids"], -100)} for batch in some_text()]
        fit_translator(surrogate, target, text, "train:lm", args=config(tmp_path))
    weight = nn.Parameter(torch.zeros(32, 48, dtype=torch.int8), requires_grad=False)
    decoder_layers(surrogate)[1].mlp.down_proj.weight = weight
    with pytest.raises(HfChainError, match="mlp.down_proj.weight of the translator is torch.int8"):
        fit_translator(surrogate, target, some_text(), "train", args=config(tmp_path))
    assert all(weight.requires_grad for weight in surrogate.parameters() if weight.is_floating_point())


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("adam_epsilon", 1e30, r"adam_epsilon is 1e\+30, beside which gradients vanish"),
        ("adam_beta1", 1.5, "adam_beta1 is 1.5; it must be at least 0 and below 1"),
        ("weight_decay", float("inf"), "weight_decay is inf; it must be a number that is not negative"),
        ("seed", -1, "seed is -1; it must be from 0"),
        ("ddp_timeout", 2**60, "ddp_timeout is 1152921504606846976; it must be at most"),
    ],
)
def test_values_outside_their_range_are_named(field: str, value: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match=words):
        TranslatorConfig(output_dir=str(tmp_path), use_cpu=True, **{field: value})
