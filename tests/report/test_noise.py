"""A report shows how far its figures can be trusted, where chance lies, and who got worse."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_chain.commands.report import write_report
from hf_chain.methods.chain.report.noise import lead, wilson
from hf_chain.methods.chain.report.plots import loss_plot, quality_plot
from hf_chain.methods.chain.report.summary import summarize
from hf_chain.runs.ledger import Ledger, MemberRecord
from hf_chain.theme import LIGHT
from support.plots import without_plots  # noqa: F401
from support.report_runs import write_run


@pytest.mark.parametrize(
    ("right", "trials", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (812, 1000, 0.7866, 0.8350)]
)
def test_the_interval_is_wilsons(right: int, trials: int, low: float, high: float) -> None:
    """Known values; the first upper end is z² / (n + z²)."""
    assert wilson(right / trials, trials) == pytest.approx((low, high), abs=1e-4)


def measured(run_dir: Path, base: float, trials: int) -> Path:
    """A run of three members, the last of which ends at `base`, evaluated on so many images."""
    write_run(run_dir, finished=False)
    ledger = Ledger(run_dir)
    for name, top1 in {"tiny": 0.2, "small": 0.5, "base": base}.items():
        known = {"metrics_trials": {"test": {"zero_shot_top1": trials}}}
        known |= {"metrics_chance": {"test": {"zero_shot_top1": 0.05}}}
        ledger.append("evaluated", name, metrics_after={"test": {"zero_shot_top1": top1}}, **known)
        ledger.append("saved", name, weights_sha256="0" * 64)
    ledger.append("run_finished")
    return run_dir


@pytest.mark.parametrize(
    ("base", "trials", "told"),
    [
        (0.4, 1000, "base is worse than small, from which it was grown: 40.0 % after 50.0 % on test."),
        (0.4, 20, "40.0 % after 50.0 % on test, within the noise of so few samples."),
        (0.6, 1000, None),
    ],
)
def test_a_member_that_got_worse_is_named(base: float, trials: int, told: str | None, tmp_path: Path) -> None:
    page = write_report(measured(tmp_path / "family", base, trials))
    tables = (page.parent / "family.md").read_text()
    for text in (tables, page.read_text()):
        assert (told in text) if told else ("is worse than" not in text)
    low, high = wilson(base, trials)
    assert f"{100 * base:.1f} ({100 * low:.1f}–{100 * high:.1f})" in tables
    assert "| chance " in tables and "5.0 |" in tables


def test_the_plot_has_chance_and_intervals(tmp_path: Path) -> None:
    figure = quality_plot(summarize(measured(tmp_path / "family", 0.6, 100)), LIGHT)
    assert figure is not None
    (axis,) = figure.axes
    assert any(list(line.get_ydata()) == [0.05, 0.05] for line in axis.lines)
    ends = [tuple(path.vertices[:, 1]) for bars in axis.collections for path in bars.get_paths()]
    assert ends == [pytest.approx(wilson(top1, 100)) for top1 in (0.2, 0.5, 0.6)]


def test_a_curve_of_one_value_can_be_seen(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "family", members=("tiny",))
    log = run_dir / "01-tiny" / "training_log.json"
    log.write_text('[{"step": 3, "contrastive_loss": 2.5, "macs": 1000}]')
    figure = loss_plot(summarize(run_dir), LIGHT)
    assert figure is not None and any(line.get_marker() == "o" for line in figure.axes[0].lines)


def reaching(value: float, trials: int | None, metric: str) -> MemberRecord:
    """A member that reaches a value on validation, as a mean over so many."""
    record = MemberRecord("member", 0)
    record.metrics_after = {"validation": {metric: value}}
    record.metrics_trials = {"validation": {metric: trials}} if trials else {}
    return record


@pytest.mark.parametrize(
    ("ours", "theirs", "trials", "metric", "words"),
    [
        # √(0.5 · 0.5 / 100 + 0.2 · 0.8 / 100) is 0.0640.
        (0.5, 0.2, 100, "zero_shot_top1", "is 30.0 ± 6.4 points ahead of it"),
        (0.2, 0.5, 100, "zero_shot_top1", "is 30.0 ± 6.4 points behind it"),
        (0.5, 0.4, 100, "zero_shot_top1", "is within the noise of it (+10.0 ± 7.0 points)"),
        (0.5, 0.4, None, "zero_shot_top1", "is ahead of it"),
        (3.2, 3.1, 100, "nats_per_token", "is not ahead of it"),
        (3.1, 3.2, 100, "nats_per_token", "is ahead of it"),
    ],
)
def test_a_lead_is_said_with_its_error(
    ours: float, theirs: float, trials: int | None, metric: str, words: str
) -> None:
    found = lead(reaching(ours, trials, metric), reaching(theirs, trials, metric), "validation", metric)
    assert found is not None and found.verdict == words
    assert lead(reaching(ours, trials, metric), reaching(theirs, trials, "other"), "validation", metric) is None
