"""Least squares finds a linear translator exactly, never does harm, and changes nothing but the translator."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.translator import calibration_passes, closed_form, least_squares, splice_error, splice_runs
from hf_chain.grafting.translator.refit import layer_writes
from support.decoders import DECODERS, some_tokens
from support.translators import (
    RANGE,
    changed_weights,
    silence,
    some_text,
    target_and_surrogate,
    text_batch,
    weights_of,
)

PROJECTIONS = {
    "llama": "mlp.down_proj",
    "gpt2": "mlp.c_proj",
    "opt": "fc2",
    "gpt_neox": "mlp.dense_4h_to_h",
}


POST_NORM = ("gemma2", "gemma3_text", "gemma3", "olmo2", "olmo3", "glm4")
NOT_FOLDED = ("gpt_oss", "deepseek_v3")
FOLDED = [model_type for model_type in DECODERS if model_type not in NOT_FOLDED]


class Counted(list[dict[str, torch.Tensor]]):
    """Text that counts how often it is gone through."""

    passes = 0

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        self.passes += 1
        return super().__iter__()


@pytest.mark.parametrize("model_type", PROJECTIONS)
def test_linear_range_is_found_exactly(model_type: str) -> None:
    """Biases and the transposed weights of GPT-2 included; GPT-NeoX has parallel halves."""
    target, surrogate = target_and_surrogate(model_type)
    target, surrogate = target.double(), surrogate.double()
    silence(target, range(2, 5))
    with torch.no_grad():
        for weight in decoder_layers(surrogate)[1].get_submodule(PROJECTIONS[model_type]).parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    assert splice_error(surrogate, target, some_text())[0] > 0.1
    # Some units of OPT's ReLU are seldom active: what is never seen cannot be found.
    closed_form(surrogate, target, some_text(8))
    assert splice_error(surrogate, target, some_text(seed=7))[0] < 1e-6


def test_linear_map_of_a_mixture_is_found_exactly() -> None:
    target, surrogate = target_and_surrogate("mixtral")
    for model in (target, surrogate):
        # The grouped matrix product has no float64.
        model.double().set_experts_implementation("eager")
    with torch.no_grad():
        for layer in decoder_layers(target)[2:5]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.experts.down_proj.zero_()
        experts = decoder_layers(surrogate)[1].mlp.experts.down_proj
        experts.copy_(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)).double() @ experts)
    closed_form(surrogate, target, some_text())
    assert splice_error(surrogate, target, some_text(seed=7))[0] < 1e-6


@pytest.mark.parametrize("model_type", FOLDED)
def test_every_family_gets_closer_and_keeps_its_other_weights(model_type: str) -> None:
    target, surrogate = target_and_surrogate(model_type)
    text = some_text()
    before, weights, target_weights = splice_error(surrogate, target, text), weights_of(surrogate), weights_of(target)
    (fit,) = closed_form(surrogate, target, counted := Counted(text))
    assert counted.passes == 1
    after = splice_error(surrogate, target, text)
    assert after[0] < 0.97 * before[0]
    assert fit.error_after < fit.error_before
    changed = changed_weights(surrogate, weights)
    assert changed and all(".1." in name for name in changed)
    assert not changed_weights(target, target_weights)


@pytest.mark.parametrize("kept", [0, 50_000])
@pytest.mark.parametrize("model_type", FOLDED)
def test_what_is_kept_between_passes_changes_nothing_but_the_cost(
    model_type: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padded text; nothing is kept, a part of it, all of it."""
    target, surrogate = target_and_surrogate(model_type)
    other, text = copy.deepcopy(surrogate), some_text(3)
    for batch in text:
        batch["attention_mask"][::3, 9:] = 0
    (fit,) = closed_form(surrogate, target, text)
    monkeypatch.setattr(splice_runs, "KEPT_BYTES", kept)
    (again,) = closed_form(other, target, counted := Counted(text))
    assert not changed_weights(other, weights_of(surrogate))
    assert counted.passes == calibration_passes(target.config) == (7 if model_type in POST_NORM else 4)
    assert again.macs > fit.macs
    assert dataclasses.replace(again, macs=fit.macs) == fit


@pytest.mark.parametrize(("model_type", "reached"), [("gemma2", 0.7), ("olmo2", 0.88)])
def test_a_channel_that_a_norm_all_but_switches_off_does_not_spoil_the_others(model_type: str, reached: float) -> None:
    target, surrogate = target_and_surrogate(model_type)
    with torch.no_grad():
        for model in (target, surrogate):
            writes = layer_writes(model.config)
            for write in (writes.attention, writes.mlp):
                decoder_layers(model)[1].get_submodule(write.norm).weight[3] = 0.01 - write.norm_offset
    (fit,) = closed_form(surrogate, target, some_text())
    assert fit.error_after < reached, "what the even gains reach"


def test_every_expert_is_mapped() -> None:
    target, surrogate = target_and_surrogate("qwen3_moe")
    before = decoder_layers(surrogate)[1].mlp.experts.down_proj.detach().clone()
    (fit,) = closed_form(surrogate, target, some_text())
    assert fit.refitted[0] == "mlp.experts.down_proj"
    moved = (decoder_layers(surrogate)[1].mlp.experts.down_proj - before).abs().amax((1, 2))
    assert (moved > 0).all()


def test_result_loads_in_the_stock_class(tmp_path: Path) -> None:
    target, surrogate = target_and_surrogate("gemma2")
    closed_form(surrogate, target, some_text())
    surrogate.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = some_tokens()
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, surrogate(tokens).logits)


def test_padding_and_the_size_of_batches_do_not_matter() -> None:
    target, surrogate = target_and_surrogate()
    other = copy.deepcopy(surrogate)
    tokens = some_tokens(20, 16)
    closed_form(surrogate, target, [text_batch(tokens)])
    padded = text_batch(torch.cat([tokens, torch.full((20, 5), 9)], dim=1))
    padded["attention_mask"][:, 16:] = 0
    closed_form(
        other, target, [{name: value[rows] for name, value in padded.items()} for rows in (slice(7), slice(7, 20))]
    )
    for name, weight in surrogate.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], weight, rtol=1e-4, atol=1e-5)


def test_ranges_are_fitted_in_order_and_the_last_translator_of_each() -> None:
    target, surrogate = target_and_surrogate(replaced="0-2,4-6", translators=2)
    before, weights = splice_error(surrogate, target, some_text()), weights_of(surrogate)
    fits = closed_form(surrogate, target, some_text())
    after = splice_error(surrogate, target, some_text())
    assert [fit.replaced for fit in fits] == ["0-2", "4-6"]
    assert all(now < then for now, then in zip(after, before, strict=True))
    assert {name.split(".")[2] for name in changed_weights(surrogate, weights)} == {"1", "4"}


def test_unfittable_translator_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the surrogate is its target already nothing can get better."""
    warnings: list[str] = []
    monkeypatch.setattr(least_squares.logger, "warning", warnings.append)
    target, surrogate = target_and_surrogate()
    silence(target, range(2, 5))
    weights = weights_of(surrogate)
    (fit,) = closed_form(surrogate, target, some_text())
    assert not changed_weights(surrogate, weights)
    assert fit.refitted == [] and f"layers {RANGE} as it was" in warnings[0]


def test_bad_input() -> None:
    target, surrogate = target_and_surrogate()
    with pytest.raises(HfChainError, match="got 4 calibration sequences: give at least 5"):
        closed_form(surrogate, target, some_text(1, rows=4))
    broken = copy.deepcopy(target)
    with torch.no_grad():
        decoder_layers(broken)[0].mlp.down_proj.weight.fill_(float("inf"))
    with pytest.raises(HfChainError, match="hidden states after layers 1-4 are not finite"):
        closed_form(surrogate, broken, some_text())
    with pytest.raises(HfChainError, match="no surrogate"):
        closed_form(target, target, some_text())
    post_norm, cut = target_and_surrogate("opt", do_layer_norm_before=False)
    with pytest.raises(HfChainError, match="do_layer_norm_before=False"):
        closed_form(cut, post_norm, some_text())

    class Quantised(torch.nn.Linear):
        pass

    decoder_layers(surrogate)[1].mlp.down_proj.__class__ = Quantised
    with pytest.raises(HfChainError, match="cannot write into mlp.down_proj, which is Quantised"):
        closed_form(surrogate, target, some_text())


@pytest.mark.parametrize("model_type", NOT_FOLDED)
def test_experts_in_another_layout_are_left_to_training(model_type: str) -> None:
    target, surrogate = target_and_surrogate(model_type)
    with pytest.raises(HfChainError, match=f"experts of '{model_type}' write: use method 'train'"):
        closed_form(surrogate, target, some_text())
