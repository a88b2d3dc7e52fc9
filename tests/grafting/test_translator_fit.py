"""Methods go one after the other, reports say what came out, and lineage says how it was made."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from hf_chain.errors import HfChainError
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.translator import (
    TranslatorConfig,
    compare_translators,
    dropping_error,
    fit_translator,
    perplexity,
    splice_error,
    translator_table,
)
from hf_chain.grafting.translator.least_squares import equation_macs
from hf_chain.grafting.translator.quality import measure_quality, measure_reference
from hf_chain.grafting.translator_table import loss_recovered, perplexity_remark
from support.decoders import logits_without, some_tokens, tiny_decoder
from support.translators import changed_weights, some_text, target_and_surrogate, text_batch, weights_of


def short(folder: Path) -> TranslatorConfig:
    return TranslatorConfig(output_dir=str(folder), max_steps=2, use_cpu=True, disable_tqdm=True)


def test_methods_follow_each_other(tmp_path: Path) -> None:
    target, surrogate = target_and_surrogate()
    own = weights_of(surrogate)
    methods = ("closed_form", "train:logits")
    report = fit_translator(
        surrogate, target, some_text(), methods, held_out=some_text(1, seed=9), args=short(tmp_path)
    )
    assert report.method == read_lineage(surrogate.config).translator_method == "closed_form+train:logits"
    assert report.replaced == ["1-4"] and report.seconds > 0
    assert report.macs == report.fits[0].macs + report.trainings[0].macs > 0
    assert fit_translator(surrogate, target, some_text(), "train", args=short(tmp_path)).method.endswith(
        "+train:hidden"
    )
    assert fit_translator(surrogate, target, [], "inherit").macs == 0
    assert not changed_weights(surrogate, own)
    assert read_lineage(surrogate.config).translator_method == "inherit"


def test_report_holds_what_can_be_measured() -> None:
    target, surrogate = target_and_surrogate()
    held_out = some_text(1, seed=9)
    report = fit_translator(surrogate, target, some_text(), "closed_form", held_out=held_out)
    quality = report.quality
    assert quality is not None
    assert quality.splice_error == splice_error(surrogate, target, held_out)
    assert quality.perplexity == perplexity(surrogate, held_out)
    reference = quality.reference
    assert reference.target_perplexity == perplexity(target, held_out)
    # The layers 1 to 4 are replaced: what leaves the last of them is compared with what enters the first.
    tokens = held_out[0]["input_ids"]
    predicted = logits_without(target, (1, 2, 3, 4), tokens)[:, :-1].flatten(0, 1)
    dropped = cross_entropy(predicted.double(), tokens[:, 1:].flatten()).exp().item()
    assert reference.dropping_perplexity == pytest.approx(dropped, rel=1e-5)
    states = target(tokens, output_hidden_states=True).hidden_states
    before, after = (states[place].flatten(0, 1).double() for place in (1, 5))
    weights = 1 / after.square().sum(1, keepdim=True)
    constant = (weights * after).sum(0) / weights.sum()
    errors = [(weights * (guess - after).square()).sum() for guess in (before, constant)]
    assert reference.dropping_splice_error == [pytest.approx((errors[0] / errors[1]).sqrt().item(), rel=1e-5)]
    perplexities = reference.target_perplexity, reference.dropping_perplexity, quality.perplexity
    assert quality.recovered == loss_recovered(*perplexities)
    assert json.loads(report.to_json())["quality"]["reference"]["target_perplexity"] == reference.target_perplexity


@pytest.mark.parametrize("known", [False, True])
def test_one_pass_measures_two_ranges_in_padded_text_as_each_measure_does(known: bool) -> None:
    target, surrogate = target_and_surrogate(replaced="1-2,4-6")
    text = some_text(3)
    for batch in text:
        batch["attention_mask"][::3, 9:] = 0
    ranges = read_lineage(surrogate.config).replaced
    reference = measure_reference(target, ranges, iter(text))
    assert reference.target_perplexity == perplexity(target, text)
    assert reference.dropping_perplexity == perplexity(target, text, dropped=ranges)
    assert reference.dropping_splice_error == dropping_error(target, ranges, text)
    quality = measure_quality(surrogate, target, iter(text), reference if known else None)
    assert quality.reference == reference
    assert (quality.perplexity, quality.splice_error) == (
        perplexity(surrogate, text),
        splice_error(surrogate, target, text),
    )


@pytest.mark.parametrize("method", ["closed_form", "train:hidden", "train:logits", "train:lm", "train:gradients"])
def test_the_cost_is_that_of_the_flop_counter(method: str, tmp_path: Path) -> None:
    target, surrogate = target_and_surrogate(attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        report = fit_translator(surrogate, target, some_text(6), method, args=short(tmp_path))
    # The counter does not see normal equations, which are added up in place; of their solutions it sees the errors.
    unseen = equation_macs(surrogate, tokens=6 * 10 * 16) if method == "closed_form" else 0
    assert report.macs == pytest.approx(counter.get_total_flops() / 2 + unseen, rel=0.05)


def test_nothing_is_recovered_where_dropping_costs_nothing() -> None:
    assert (
        loss_recovered(10.0, 40.0, 20.0) == pytest.approx(math.log(40 / 20) / math.log(40 / 10)) == pytest.approx(0.5)
    )
    assert loss_recovered(10.0, 10.0, 9.0) is loss_recovered(10.0, 9.0, 9.5) is None


@pytest.mark.parametrize(
    ("dropping", "surrogate", "words"),
    [
        (40.0, 20.0, None),
        (9.95, 9.95, None),
        (
            9.0,
            10.5,
            "The target without the replaced layers (9) predicts this text better than the whole target (10):",
        ),
        (40.0, 8.0, "The surrogate (8) predicts this text better"),
        (9.0, 8.0, "The surrogate (8) and the target without the replaced layers (9) predict this text better"),
    ],
)
def test_perplexities_that_make_no_sense_get_a_sentence(dropping: float, surrogate: float, words: str | None) -> None:
    reference = {"target_perplexity": 10.0, "dropping_perplexity": dropping}
    remark = perplexity_remark({"perplexity": surrogate, "reference": reference})
    if words is None:
        assert remark is None
    else:
        assert remark is not None and remark.startswith(words) and "the text is not what the model speaks" in remark


@torch.no_grad()
def test_splice_error_is_its_equation() -> None:
    target, surrogate = target_and_surrogate()
    tokens = some_tokens(4, 10)
    t, s = (
        model(input_ids=tokens, output_hidden_states=True).hidden_states[state].flatten(0, 1).double()
        for model, state in ((target, 5), (surrogate, 2))
    )
    w = 1 / t.square().sum(1)
    mean = (w[:, None] * t).sum(0) / w.sum()
    spread = (w * (t - mean).square().sum(1)).sum()
    expected = ((w * (s - t).square().sum(1)).sum() / spread).sqrt().item()
    assert splice_error(surrogate, target, [text_batch(tokens)]) == pytest.approx([expected])
    padded = text_batch(torch.cat([tokens, tokens], dim=1))
    padded["attention_mask"][:, 10:] = 0
    assert splice_error(surrogate, target, [padded]) == pytest.approx([expected], rel=1e-5)


def test_comparison_has_a_row_for_each_method_and_leaves_the_target_alone(tmp_path: Path) -> None:
    target = tiny_decoder("llama")
    before = weights_of(target)
    methods = ["inherit", "closed_form", ("closed_form", "train:lm")]
    reports = compare_translators(target, "1-4", some_text(), some_text(1, seed=9), methods, args=short(tmp_path))
    assert [report.method for report in reports] == ["inherit", "closed_form", "closed_form+train:lm"]
    inherit, closed_form, _ = (report.quality for report in reports)
    assert inherit and closed_form and closed_form.splice_error < inherit.splice_error
    assert inherit.reference == closed_form.reference
    table = translator_table(reports).splitlines()
    assert [row.split("|")[1].strip() for row in table[2:]] == [
        "target",
        "none (layers dropped)",
        "inherit",
        "closed_form",
        "closed_form+train:lm",
    ]
    assert not changed_weights(target, before)


def test_bad_input() -> None:
    target, surrogate = target_and_surrogate()
    with pytest.raises(HfChainError, match="'linear' is unknown: use one or several of inherit, closed_form, train,"):
        fit_translator(surrogate, target, some_text(), "linear")
    with pytest.raises(HfChainError, match="no translator method is given"):
        fit_translator(surrogate, target, some_text(), [])
    with pytest.raises(HfChainError, match="batches can be read only once"):
        fit_translator(surrogate, target, iter(some_text()))
    with pytest.raises(HfChainError, match="held_out can be read only once"):
        compare_translators(target, "1-4", some_text(), iter(some_text()), ["inherit"])
    with pytest.raises(HfChainError, match="batches is a dict: give a list of batches"):
        fit_translator(surrogate, target, some_text()[0])
    with pytest.raises(HfChainError, match="the target is a str: give the model itself"):
        fit_translator(surrogate, "some/folder", some_text())
    broken = tiny_decoder("llama")
    broken.model.layers[0].mlp.down_proj.weight.data.fill_(float("inf"))
    with pytest.raises(HfChainError, match="predictions of LlamaForCausalLM are not finite"):
        perplexity(broken, some_text())
    for model, text in ((broken, some_text()), (target, [])):
        with pytest.raises(HfChainError, match="hidden states at the splice are not finite, or all equal"):
            splice_error(surrogate, model, text)
    with pytest.raises(HfChainError, match="target has layers=6, the surrogate was cut from .* with layers=8"):
        fit_translator(surrogate, tiny_decoder("llama", num_hidden_layers=6), some_text())
    with pytest.raises(HfChainError, match="is no surrogate"):
        fit_translator(target, target, some_text())
    with pytest.raises(HfChainError, match="no token to predict"):
        perplexity(target, [text_batch(some_tokens(2, 1))])
    report = fit_translator(surrogate, target, some_text(), "inherit")
    with pytest.raises(HfChainError, match="report of inherit holds no quality"):
        translator_table([report])
