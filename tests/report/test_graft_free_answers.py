"""The report and the cards of a graft on free answers take the metric that moves, and say which one does not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hf_chain.commands.report import write_report
from hf_chain.hub import HubSettings
from hf_chain.methods.graft.card.numbers import eval_results, metrics_table, steps_table
from hf_chain.methods.graft.headline import CAPTIONS, EXACT, LOSS, RESPONSES, at_floor, headline_of
from hf_chain.methods.graft.report import tables
from hf_chain.methods.graft.report.plots import accuracy_plot
from hf_chain.methods.graft.report.summary import GraftSummary, summarize_graft
from hf_chain.runs.ledger import Ledger, read_family
from hf_chain.theme import LIGHT, applied
from support.graft_runs import EVALUATION, write_graft_run
from support.plots import without_plots  # noqa: F401

LOSSES = {"encoder": 2.104, "graft": 2.051, "decoder": 1.873, "full": 1.921}


def write_free_run(run_dir: Path, exact: float = 0.0, cider: float = 0.1, **losses: float) -> Path:
    """A finished run whose models were asked free answers."""
    write_graft_run(run_dir)
    ledger = Ledger(run_dir)
    for place, (name, loss) in enumerate((LOSSES | losses).items()):
        found = {"exact_match": exact, "response_loss": loss, "response_cider_d": cider * (1 + place / 10)}
        ledger.append("evaluated", name, metrics_after={"validation": found}, evaluation_macs=EVALUATION)
    write_report(run_dir)
    return run_dir


def summary(run_dir: Path) -> GraftSummary:
    return summarize_graft(read_family(run_dir))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_free_run(tmp_path_factory.mktemp("runs") / "free")


def test_the_headline_is_the_loss_and_exact_match_is_called_at_its_floor(run_dir: Path) -> None:
    graft = summary(run_dir)
    assert graft.headline is LOSS
    header, rows = tables.result_table(graft)
    assert header[1] == "response loss" and [row[1] for row in rows] == [f"{x:.3f} nats" for x in LOSSES.values()]
    lines = tables.sentences(graft)
    assert lines[0] == (
        "Grafted with nothing trained, response loss is 2.051 nats; on the surrogate it was 2.104 nats (-0.053 nats)."
    )
    assert "response loss 1.873 nats; full-decoder baseline: 1.921 nats (-0.048 nats)." in lines[1]
    floor = "Exact match on validation is 0.0 % for every model: it is at its floor, and tells nothing of them."
    assert lines[2] == floor
    metrics = {row[0]: row[1:] for row in tables.metrics_table(graft, "validation")[1]}
    assert metrics["exact match (at its floor)"] == ["0.0"] * 4
    assert metrics["CIDEr-D × 100 of responses"] == ["10.0", "11.0", "12.0", "13.0"]
    assert metrics["response loss, nats a token"] == [f"{loss:.3f}" for loss in LOSSES.values()]


def test_tiles_bars_and_files_take_it_too(run_dir: Path) -> None:
    page = (run_dir / "report" / "index.html").read_text()
    assert "right answers" not in page and "0.0 points" not in page
    assert page.count("1.873 nats") >= 2 and "a token of the responses, less is better" in page
    # The least loss has the whole bar.
    widths = [float(width) for width in re.findall(r'<i style="width: ([\d.]+)%"', page)]
    assert widths == [round(100 * min(LOSSES.values()) / loss, 1) for loss in LOSSES.values()]
    content = json.loads((run_dir / "report" / "graft.json").read_text())
    assert content["headline"] == "response_loss" and content["steps"][0]["validation.response_loss"] == 2.104


def test_the_plot_shows_losses_where_they_are(run_dir: Path) -> None:
    with applied(LIGHT):
        figure = accuracy_plot(summary(run_dir), LIGHT)
    assert figure is not None
    (axis,) = figure.axes
    low, high = axis.get_ylim()
    assert 1.5 < low < min(LOSSES.values()) and max(LOSSES.values()) < high < 2.5
    assert axis.get_ylabel() == "response loss, nats (less is better)"
    assert "Response loss on validation" in axis.get_title(loc="left")
    assert any("1.873 nats" in text.get_text() for text in axis.texts)
    figure.draw_without_rendering()
    inside = axis.get_window_extent()
    assert all(inside.y0 <= text.get_window_extent().y0 for text in axis.texts)


def test_cards_have_a_loss_and_no_accuracy_of_nothing(run_dir: Path) -> None:
    graft = summary(run_dir).graft
    stage = graft.stage("decoder")
    found = {(one.metric_type, one.metric_value) for one in eval_results(graft, stage, HubSettings(), {})}
    assert found == {("loss", 1.873), ("cider", 0.12)}
    assert "exact match (at its floor)" in metrics_table(stage)
    table = steps_table(graft, stage)
    assert "response loss, validation" in table and "1.873 nats" in table and "yes/no" not in table


def test_models_that_read_the_same_are_not_told_apart(tmp_path: Path) -> None:
    graft = summary(write_free_run(tmp_path / "same", graft=2.1040004, encoder=2.104))
    assert graft.headline is LOSS
    assert "2.104 nats; on the surrogate it was 2.104 nats (no change)." in tables.sentences(graft)[0]


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ([{"exact_match": 0.5}, {"exact_match": 0.6}], EXACT),
        ([{"exact_match": 0.0}, {"exact_match": 0.0}], EXACT),
        ([{"exact_match": 0.0, "response_loss": 2.0}], LOSS),
        ([{"exact_match": 0.0, "response_loss": 2.0}, {"exact_match": 0.2, "response_loss": 1.9}], EXACT),
        ([{"exact_match": 0.02, "response_loss": 2.0, "response_cider_d": 0.1}], LOSS),
        ([{"exact_match": 0.3, "response_loss": 2.0}, {"exact_match": 0.3, "response_loss": 1.9}], LOSS),
        (
            [
                {"exact_match": 0.0, "response_loss": 2.0, "response_cider_d": 0.1},
                {"exact_match": 0.0, "response_loss": 2.0, "response_cider_d": 0.2},
            ],
            RESPONSES,
        ),
        ([{"cider_d": 0.5}, {"cider_d": 0.6}], CAPTIONS),
        ([{"exact_match": 0.4}, {"exact_match": float("nan")}], EXACT),
        ([], EXACT),
    ],
)
def test_the_metric_that_moves_is_taken(measured: list[dict[str, float]], expected: object) -> None:
    assert headline_of(measured) is expected


def test_only_metrics_that_are_0_everywhere_are_at_their_floor() -> None:
    assert at_floor([{"exact_match": 0.0002, "response_cider_d": 0.0}, {"exact_match": 0.0}]) == [EXACT, RESPONSES]
    assert at_floor([{"exact_match": 0.0}, {"exact_match": 0.01}]) == [] and at_floor([]) == []
    # No loss is the best there is.
    assert at_floor([{"response_loss": 0.0}]) == []
