"""Plots show the data, change with it and are left out where there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from hf_chain.commands.report import write_report
from hf_chain.errors import HfChainError
from hf_chain.methods.chain.report.plots import MOST_POINTS, PLOTS, Curve, cost_plot, curves, quality_plot
from hf_chain.methods.chain.report.summary import summarize
from hf_chain.theme import LIGHT
from support.report_runs import ALONE_TOP1, SHAPES, TOP1, write_run


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_every_plot_has_ink_and_changes_with_the_ledger(tmp_path):
    whole = write_report(write_run(tmp_path / "whole")).parent
    part = write_report(write_run(tmp_path / "part", members=("tiny", "small"), finished=False)).parent
    for name in PLOTS:
        drawn = pixels(whole / f"{name}.png")
        assert min(drawn.shape[:2]) > 400
        assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 20
        other = pixels(part / f"{name}.png")
        assert drawn.shape != other.shape or (drawn != other).any()


def test_the_same_ledger_gives_the_same_bytes(chain):
    folder = write_report(chain).parent
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_report(chain)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


def test_accuracy_stands_over_the_cumulative_cost(chain, independent):
    family = summarize(chain, independent)
    (axis,) = quality_plot(family, LIGHT).axes
    lines = {line.get_label(): line.get_xydata() for line in axis.lines}
    costs = np.cumsum([member.chain_macs for member in family.members])
    # Before and after of every member, the last at the whole cost.
    assert lines["chain"].shape == (6, 2)
    np.testing.assert_allclose(
        lines["chain"][[1, 3, 5]], [(c, TOP1[n][1]) for c, n in zip(costs, SHAPES, strict=True)]
    )
    alone = np.cumsum([member.alone_macs for member in family.members])
    expected = [(c, ALONE_TOP1[n][1]) for c, n in zip(alone, SHAPES, strict=True)]
    np.testing.assert_allclose(lines["each alone"], expected)


def test_without_a_baseline_no_independent_accuracy_is_drawn(chain):
    (axis,) = quality_plot(summarize(chain), LIGHT).axes
    assert "each alone" not in [line.get_label() for line in axis.lines]


def test_bars_are_the_costs_of_the_ledger(chain):
    family = summarize(chain)
    (axis,) = cost_plot(family, LIGHT).axes
    widths = [bar.get_width() for bar in axis.patches]
    assert widths == [member.chain_macs for member in family.members] + [m.alone_macs for m in family.members]


def test_loss_curves_follow_each_other_along_the_cost_of_the_chain(chain):
    family = summarize(chain)
    found = curves(family, "contrastive_loss")
    assert [curve.member for curve in found] == list(SHAPES)
    log = json.loads((chain / "02-small" / "training_log.json").read_text())
    assert found[1].values.tolist() == [entry["contrastive_loss"] for entry in log if "loss" in entry]
    first = family.members[0].chain_macs
    assert found[1].macs[-1] == first + family.members[1].record.training_macs["total"]
    assert found[0].macs.max() <= first < found[1].macs.min()


def test_smoothing_keeps_a_constant_and_quiets_noise():
    macs = np.arange(300.0)
    assert np.allclose(Curve("m", macs, np.full(300, 2.5)).smooth, 2.5)
    noise = np.random.default_rng(0).normal(size=300)
    assert Curve("m", macs, noise).smooth.std() < 0.4 * noise.std()
    assert Curve("m", macs[:1], noise[:1]).smooth.tolist() == noise[:1].tolist()


def test_long_logs_are_thinned_and_gaps_left_out(chain):
    path = chain / "01-tiny" / "training_log.json"
    log = [{"macs": step, "contrastive_loss": float(step) if step % 7 else float("nan")} for step in range(5_000)]
    path.write_text(json.dumps(log))
    curve = curves(summarize(chain), "contrastive_loss")[0]
    assert len(curve.values) == MOST_POINTS
    assert np.isfinite(curve.values).all()
    assert (curve.values[0], curve.values[-1]) == (1, 4_999)


def test_a_damaged_log_is_named(chain):
    (chain / "01-tiny" / "training_log.json").write_text("[{")
    with pytest.raises(HfChainError, match=r"01-tiny.training_log\.json is damaged"):
        write_report(chain)
