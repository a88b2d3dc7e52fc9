"""The report of a graft: what the ledger says, in tables, plots and on one page."""

from __future__ import annotations

import csv
import itertools
import json
import re
import shutil
from pathlib import Path

import pytest

from hf_chain.commands.report import write_report
from hf_chain.cost import human
from hf_chain.errors import HfChainError
from hf_chain.files import write_manifest
from hf_chain.methods.graft.card.body import translator_results
from hf_chain.methods.graft.record import graft_record
from hf_chain.methods.graft.report import tables
from hf_chain.methods.graft.report.plots import PLOTS, accuracy_plot, cost_plot
from hf_chain.methods.graft.report.summary import GraftSummary, summarize_graft
from hf_chain.report.words import duration
from hf_chain.runs.ledger import Ledger, read_family
from hf_chain.theme import LIGHT, applied
from support.chain_clips import tiny_clip
from support.damage import flip
from support.graft_runs import CUT, EVALUATION, EXACT, TRAINING, graft_recipe, write_graft_run
from support.plots import without_plots  # noqa: F401
from support.report_runs import write_run

TITLES = ["surrogate", "grafted (nothing trained)", "grafted + 10 % decoder data", "full-decoder baseline"]
OURS = TRAINING["surrogate"] + TRAINING["encoder"] + TRAINING["decoder"] + 3 * EVALUATION
BASELINE = TRAINING["alignment"] + TRAINING["full"] + 2 * EVALUATION


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which no test changes, with its report."""
    run_dir = write_graft_run(tmp_path_factory.mktemp("runs") / "graft")
    write_report(run_dir)
    return run_dir


def summary(run_dir: Path) -> GraftSummary:
    return summarize_graft(read_family(run_dir))


def column(table: tables.Table, name: str) -> list[str]:
    header, rows = table
    return [row[header.index(name)] for row in rows]


def test_the_steps_are_rows_with_what_it_took_to_get_there(finished: Path) -> None:
    table = tables.result_table(summary(finished))
    assert column(table, "model") == TITLES
    assert column(table, "exact match") == ["61.2 %", "63.4 %", "74.1 %", "72.5 %"]
    assert column(table, "yes/no F1") == ["65.2 %", "67.4 %", "78.1 %", "76.5 %"]
    assert column(table, "training MACs") == [human(TRAINING[n]) for n in ("encoder", "graft", "decoder", "full")]
    surrogate = TRAINING["surrogate"] + TRAINING["encoder"] + EVALUATION
    spent = [surrogate, surrogate + EVALUATION, OURS, BASELINE]
    assert column(table, "MACs to get there") == [human(macs) for macs in spent]
    assert column(table, "of the baseline") == [f"{100 * macs / BASELINE:.1f} %" for macs in spent]
    seconds = [TRAINING[name] / 2e10 for name in ("surrogate", "encoder", "decoder", "alignment", "full")]
    surrogate, encoder, decoder, alignment, full = seconds
    assert column(table, "time") == [duration(encoder), "0 s", duration(decoder), duration(full)]
    grafted = surrogate + encoder
    spent = [grafted, grafted, grafted + decoder, alignment + full]
    assert column(table, "time to get there") == [duration(time) for time in spent]


def test_calibration_translator_and_evaluations_count_and_the_target_does_not(finished: Path) -> None:
    comparison = summary(finished).graft.comparison()
    assert comparison is not None
    assert comparison.ours["finding the cut"] == CUT
    assert comparison.ours["making the translator"] == TRAINING["surrogate"] - CUT
    assert (comparison.total, comparison.baseline_total) == (OURS, BASELINE)
    assert comparison.ours["all evaluations"] / 3 == comparison.baseline["all evaluations"] / 2 == EVALUATION
    text = (finished / "report" / "graft.md").read_text()
    assert f"{100 * (1 - OURS / BASELINE):.1f} % less than the baseline" in text
    assert "Not counted: the training of target and encoder" in text


def test_old_ledgers_have_the_cost_of_a_cut_as_a_teachers(finished: Path) -> None:
    family = read_family(finished)
    expected = graft_record(family).comparison()
    macs = family.member("surrogate").training_macs
    old = {"student": macs["translator"], "teacher": macs["cut"], "total": macs["total"]}
    family.member("surrogate").training_macs = old
    assert expected is not None and graft_record(family).comparison() == expected


def test_what_is_given_is_shown(finished: Path, tmp_path: Path) -> None:
    rows = tables.stage_table(summary(finished))[1]
    assert rows[0][:2] == ["target: trained here", "given"] and human(TRAINING["target"]) in rows[0]
    assert rows[1][0] == "encoder: runs/scenes/03-base"
    published = graft_recipe("graft") | {"target": {"name_or_path": "meta/llama", "revision": "abc", "new": None}}
    run_dir = write_graft_run(tmp_path / "graft", ("surrogate", "encoder"), target=published["target"])
    assert tables.stage_table(summary(run_dir))[1][0][0] == "target: meta/llama@abc"


def test_an_encoder_from_a_chain_shows_what_the_chain_took(tmp_path: Path) -> None:
    chain = write_run(tmp_path / "chain")
    run_dir = write_graft_run(tmp_path / "graft")
    Ledger(run_dir).append("started", "encoder", parent=str(chain / "02-small"))
    members = read_family(chain).members[:2]
    assert summary(run_dir).given[1].parameters == 0  # its folder is gone
    model = tiny_clip()
    model.save_pretrained(chain / "02-small")
    given = summary(run_dir).given[1]
    assert given.parameters == model.vision_model.num_parameters()
    assert given.name == "chain/02-small"
    assert given.macs == sum(member.training_macs["total"] for member in members)


def test_the_translator_stands_between_target_and_dropping(finished: Path) -> None:
    table = tables.translator_table(summary(finished))
    assert table is not None
    assert column(table, "translator") == ["target", "none (layers dropped)", "closed_form"]
    assert column(table, "perplexity") == ["3.000", "48.000", "6.000"]
    assert column(table, "splice error")[1:] == ["1.300", "0.210"]
    assert column(table, "loss recovered") == ["100 %", "0 %", "75 %"]


def test_sentences_say_what_grafting_and_fine_tuning_bring(finished: Path) -> None:
    lines = tables.sentences(summary(finished))
    assert "63.4 % of the answers are right; on the surrogate it was 61.2 % (+2.2 points)." in lines[0]
    assert lines[1] == "Grafted + 10 % decoder data: 74.1 %; full-decoder baseline: 72.5 % (+1.6 points)."


def test_perplexities_that_make_no_sense_are_said_to(tmp_path: Path) -> None:
    run_dir = write_graft_run(tmp_path / "graft")
    assert not any("speaks" in line for line in tables.sentences(summary(run_dir)))
    path = run_dir / "02-surrogate" / "translator.json"
    report = json.loads(path.read_text())
    report["quality"]["reference"]["dropping_perplexity"] = 2.5
    path.write_text(json.dumps(report))
    (line,) = [line for line in tables.sentences(summary(run_dir)) if "speaks" in line]
    assert line.startswith("The target without the replaced layers (2.5) predicts this text better than the whole tar")
    assert line.removesuffix(".") in translator_results(report)


@pytest.mark.plots
def test_seconds_stand_beside_macs_and_say_why_they_differ(finished: Path, tmp_path: Path) -> None:
    graft = summary(finished)
    seconds, table = graft.graft.comparison_in_seconds(), tables.comparison_table(graft)
    assert seconds is not None and table is not None
    assert table[0][1:] == ["graft, MACs", "baseline, MACs", "graft, seconds", "baseline, seconds"]
    rows = {row[0]: row[1:] for row in table[1]}
    assert rows["encoder"][2] == f"{TRAINING['encoder'] / 2e10:.2f}".rstrip("0").rstrip(".")
    assert rows["saved"] == ["59.3 %", "", f"{100 * seconds.saving:.1f} %", ""]
    assert "in seconds of training 60.6 % less" in write_report(finished).read_text()
    assert not any("In seconds less is saved" in line for line in tables.sentences(graft))
    slow = write_graft_run(tmp_path / "slow")
    Ledger(slow).append("trained", "decoder", seconds=seconds.baseline_total)
    lines = tables.sentences(summary(slow))
    assert any(line.startswith("In seconds less is saved than in MACs: ") for line in lines)


def test_scripts_get_plain_numbers(finished: Path) -> None:
    with (finished / "report" / "graft.csv").open(newline="") as file:
        rows = {row["stage"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(TRAINING)
    assert int(rows["decoder"]["macs_to_get_there"]) == OURS
    assert float(rows["graft"]["validation.exact_match"]) == EXACT["graft"]
    assert rows["target"]["share_of_baseline"] == ""
    content = json.loads((finished / "report" / "graft.json").read_text())
    assert [step["title"] for step in content["steps"]] == TITLES
    assert content["comparison"]["saving"] == 1 - OURS / BASELINE
    assert content["comparison_in_seconds"]["unit"] == "seconds"
    assert len(content["stages"]) == len(TRAINING) and content["translator"]["method"] == "closed_form"


def test_ten_questions_of_every_kind_are_answered_by_every_step(finished: Path) -> None:
    examples = summary(finished).examples
    assert len(examples) == 10 and {example.kind for example in examples} == {"colour", "exists", "many"}
    assert all(list(example.answers) == TITLES for example in examples)
    assert not any("<image>" in example.question for example in examples)
    text = (finished / "report" / "graft.md").read_text()
    assert "## 10 answers" in text and "a\\|b" in text and "✗" in text and "✓" in text
    for name in re.findall(r"!\[\]\((.*?)\)", text):
        assert (finished / "report" / name).is_file()


def test_answers_to_other_questions_are_not_mixed_up(tmp_path: Path) -> None:
    run_dir = write_graft_run(tmp_path / "graft", pictures=False)
    path = run_dir / "05-decoder" / "answers.json"
    rows = json.loads(path.read_text())["validation"][::-1]
    path.write_text(json.dumps({"validation": rows}))
    for example in summary(run_dir).examples:
        assert set(example.answers) == set(TITLES) - {TITLES[2]}


def test_damaged_pictures_are_named_and_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_dir = write_graft_run(tmp_path / "graft")
    write_manifest(run_dir / "examples" / "validation")
    assert all(example.pictures for example in summary(run_dir).examples)
    flip(run_dir / "examples" / "validation" / "02-0.png")
    assert not any(example.pictures for example in summary(run_dir).examples)
    assert "examples/validation is damaged (02-0.png has changed since it was written)" in caplog.text


@pytest.mark.plots
@pytest.mark.parametrize("done", [0, 2, 3, 6])
def test_an_unfinished_run_shows_what_is_known(tmp_path: Path, done: int) -> None:
    run_dir = write_graft_run(tmp_path / "graft", tuple(TRAINING)[:done])
    page = write_report(run_dir).read_text()
    assert "a run in progress" in page
    text = (run_dir / "report" / "graft.md").read_text()
    assert "Cost against the baseline" not in text
    assert not re.search(r"None|nan\b", re.sub(r"base64,[^\"]*", "", text))
    assert (run_dir / "report" / "accuracy.png").exists() == (done > 2)


def test_a_part_of_a_decoder_and_lora_have_their_names(tmp_path: Path) -> None:
    recipe = graft_recipe("graft")
    recipe["stages"][2] |= {"parts": {"lora": 1e-4}, "epochs": 0.25}
    more = {"name": "more", "decoder": "target", "parts": {"decoder": 1e-5}, "epochs": 0.5, "data": ["images"]}
    recipe["stages"].append(more)
    recipe["baseline"][1]["parts"] = {"lora": 1e-4}
    run_dir = write_graft_run(tmp_path / "graft", ("target",), stages=recipe["stages"], baseline=[])
    graft = summary(run_dir).graft
    titles = [graft.step_title(step) for step in graft.steps]
    assert titles[2:] == ["grafted + 25 % decoder data (LoRA)", "grafted + 75 % decoder data"]
    for stage in recipe["stages"][2:]:
        stage |= {"share": 0.1, "epochs": 2}
    run_dir = write_graft_run(tmp_path / "shares", ("target",), stages=recipe["stages"], baseline=[])
    assert summary(run_dir).graft.steps[-1].title == "grafted + 10 % decoder data", "the same tenth each time"
    run_dir = write_graft_run(tmp_path / "lora", ("target",), baseline=recipe["baseline"])
    assert summary(run_dir).graft.steps[-1].title == "LoRA baseline"
    # What a pattern stands for is known once it was trained.
    by_pattern = {**recipe["baseline"][-1], "parts": {"*.layers.2.*": 1e-3}}
    run_dir = write_graft_run(tmp_path / "pattern", ("target",), baseline=[by_pattern])
    assert summary(run_dir).graft.steps[-1].title == f"baseline: {by_pattern['name']}"
    Ledger(run_dir).append("trained", by_pattern["name"], trains_decoder=True)
    assert summary(run_dir).graft.steps[-1].title == "full-decoder baseline"


def test_a_stage_that_neither_trains_nor_is_asked_costs_nothing(tmp_path: Path) -> None:
    untrained = {"name": "start", "decoder": "target", "parts": {}, "epochs": 1.0, "data": ["images"]}
    run_dir = write_graft_run(tmp_path / "graft", baseline=[untrained, *graft_recipe("graft")["baseline"]])
    assert summary(run_dir).graft.comparison() is None, "it is yet to be done"
    Ledger(run_dir).append("saved", "start", folder="08-start", weights_sha256="0" * 64)
    comparison = summary(run_dir).graft.comparison()
    assert comparison is not None and sum(comparison.baseline.values()) == BASELINE


@pytest.mark.plots
def test_the_page_has_every_table_and_nothing_from_elsewhere(finished: Path) -> None:
    page = (finished / "report" / "index.html").read_text()
    graft = summary(finished)
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page)
    for table in (tables.result_table(graft), tables.comparison_table(graft), tables.translator_table(graft)):
        assert table is not None
        for row in table[1]:
            assert set(row) <= set(cells)
    assert "<b>59.3 %</b>" in page
    assert page.count('alt="the picture that is asked about"') == 10
    for tag, value in re.findall(r'<(\w+)[^>]* (?:src|srcset|href)="(?!data:)([^"]*)"', page):
        pytest.fail(f"{tag} loads {value}")
    assert not re.search(r"<script|<iframe|<object|@import|url\(", page)


def test_names_from_the_recipe_cannot_break_the_page(tmp_path: Path) -> None:
    page = write_report(write_graft_run(tmp_path / "<b>bold & brave", ("target",))).read_text()
    assert "<b>bold" not in page and "&lt;b&gt;bold &amp; brave" in page


@pytest.mark.plots
def test_the_same_run_gives_the_same_bytes(finished: Path) -> None:
    before = {path.name: path.read_bytes() for path in (finished / "report").iterdir()}
    assert set(before) >= {f"{name}.png" for name in PLOTS}
    write_report(finished)
    assert {path.name: path.read_bytes() for path in (finished / "report").iterdir()} == before


def test_points_and_bars_are_the_costs_of_the_ledger(finished: Path) -> None:
    graft = summary(finished)
    with applied(LIGHT):
        accuracy, cost = accuracy_plot(graft, LIGHT), cost_plot(graft, LIGHT)
    assert accuracy is not None and cost is not None
    lines = {line.get_label(): line.get_xydata().tolist() for line in accuracy.axes[0].lines}
    assert lines["graft"][-1] == [OURS, EXACT["decoder"]]
    assert lines["baseline"] == [[TRAINING["alignment"] + EVALUATION, EXACT["alignment"]], [BASELINE, EXACT["full"]]]
    ends = {round(bar.get_x() + bar.get_width()) for bar in cost.axes[0].patches}
    assert {OURS, BASELINE, CUT} <= ends


def test_without_a_baseline_no_plot_speaks_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXACT, "decoder", EXACT["encoder"])  # names that run into each other unless they are moved
    graft = summary(write_graft_run(tmp_path / "graft", tuple(TRAINING)[:5], baseline=[]))
    with applied(LIGHT):
        accuracy, cost = accuracy_plot(graft, LIGHT), cost_plot(graft, LIGHT)
    assert accuracy is not None and cost is not None
    assert [text.get_text() for text in cost.axes[0].get_legend().get_texts()] == ["graft"]
    names = [text.get_text() for text in cost.axes[0].get_yticklabels()]
    assert names == ["finding the cut", "making the translator", "encoder", "graft", "decoder"]
    accuracy.draw_without_rendering()
    boxes = [text.get_window_extent() for text in accuracy.axes[0].texts]
    assert len(boxes) == 3
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_points_at_zero_keep_their_names_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXACT:
        monkeypatch.setitem(EXACT, name, 0.0)
    graft = summary(write_graft_run(tmp_path / "graft"))
    with applied(LIGHT):
        accuracy = accuracy_plot(graft, LIGHT)
    assert accuracy is not None
    accuracy.draw_without_rendering()
    (axis,) = accuracy.axes
    boxes = [*(text.get_window_extent() for text in axis.texts), axis.get_legend().get_window_extent()]
    boxes += [label.get_window_extent() for label in axis.get_xticklabels() if label.get_text()]
    assert len(axis.texts) == 5
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert all(axis.get_window_extent().contains(box.x0, box.y0) for box in boxes[:6])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("02-surrogate/translator.json", "{"),
        ("02-surrogate/translator.json", '{"quality": {"perplexity": 0}}'),
        ("03-encoder/answers.json", '{"validation": [{"question": "?"}]}'),
        ("03-encoder/answers.json", "[]"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    run_dir = write_graft_run(tmp_path / "graft", tuple(TRAINING)[:3])
    (run_dir / name).write_text(content)
    with pytest.raises(HfChainError, match=f"{name} (is|are) damaged|{name} is damaged: remove the file"):
        write_report(run_dir)


def test_a_graft_needs_no_run_beside_it(finished: Path) -> None:
    with pytest.raises(HfChainError, match="is a graft, whose baseline is in its own run: leave elsewhere out"):
        write_report(finished, "elsewhere")


@pytest.mark.plots
def test_a_missing_surrogate_folder_leaves_translator_and_trajectory_out(tmp_path: Path) -> None:
    run_dir = write_graft_run(tmp_path / "graft")
    shutil.rmtree(run_dir / "02-surrogate")
    folder = write_report(run_dir).parent
    assert not (folder / "trajectory.png").exists()
    assert "## Translator" not in (folder / "graft.md").read_text()
