"""Numbers in the tables equal the ledger."""

from __future__ import annotations

import csv
import json

import pytest

from hf_chain.commands.report import write_report
from hf_chain.cost import human
from hf_chain.methods.chain.report.summary import summarize
from hf_chain.methods.chain.report.tables import comparison_table, cost_table, metrics_table
from support.plots import without_plots  # noqa: F401
from support.report_runs import MACS, PARAMETERS, SHAPES, TOP1, training_macs, write_run


def test_csv_holds_the_plain_numbers_of_every_member(chain):
    folder = write_report(chain).parent
    with (folder / "family.csv").open(newline="") as file:
        rows = {row["member"]: row for row in csv.DictReader(file)}
    assert list(rows) == list(SHAPES)
    for name, row in rows.items():
        assert int(row["parameters"]) == PARAMETERS[name]
        assert int(row["macs_per_sample"]) == MACS[name]
        assert float(row["validation.zero_shot_top1.after"]) == TOP1[name][1]
    costs = training_macs("small", 8, "tiny")
    assert int(rows["small"]["student_macs"]) == costs["student"]
    assert int(rows["small"]["teacher_macs"]) == costs["teacher"]
    assert rows["small"]["predecessor"] == "tiny"
    assert rows["small"]["operator"] == "exact"
    assert rows["tiny"]["predecessor"] == rows["tiny"]["growth_error.image"] == ""
    assert float(rows["base"]["growth_error.image"]) == 3.1e-7


def test_json_holds_totals_and_ledger_records(chain, independent):
    content = json.loads((write_report(chain, independent).parent / "family.json").read_text())
    family = summarize(chain, independent)
    assert content["chain_macs"] == family.chain_macs
    assert content["acceleration_ratio"] == family.acceleration_ratio
    assert content["primary_metric"] == {"split": "validation", "metric": "zero_shot_top1"}
    assert [member["metrics_after"] for member in content["members"]] == [
        member.record.metrics_after for member in family.members
    ]
    assert content["members"][2]["twin"]["training_macs"] == training_macs("base", 24, None)


def test_people_read_the_same_numbers(chain):
    family = summarize(chain)
    header, rows = cost_table(family)
    small = dict(zip(header, rows[1], strict=True))
    costs = training_macs("small", 8, "tiny")
    assert small["image tower"] == "192 × 6"
    assert small["student MACs"] == human(costs["student"])
    assert small["teacher MACs"] == human(costs["teacher"])
    assert small["of alone"] == f"{100 * family.members[1].share_of_alone:.0f} %"
    assert small["grown from"] == "tiny (exact)"
    assert rows[-1][header.index("student MACs")] == human(
        sum(member.record.training_macs["student"] for member in family.members)
    )
    header, rows = metrics_table(family, "validation")
    top1 = [row[header.index("zero-shot top-1")] for row in rows]
    assert top1 == ["0.5 → 11.8", "11.8 → 16.2", "16.1 → 19.4"]


def test_comparison_sets_chain_against_twin(chain, independent):
    header, rows = comparison_table(summarize(chain, independent))
    assert rows[2][:4] == ["base", "19.4 %", "17.1 %", "+2.3"]
    family = summarize(chain, independent)
    base = family.members[2]
    assert rows[2][header.index("cheaper")] == f"{base.alone_macs / base.chain_macs:.1f}×"


def test_markdown_has_the_tables_and_the_ratio_in_words(chain, independent):
    text = (write_report(chain, independent).parent / "family.md").read_text()
    ratio = summarize(chain, independent).acceleration_ratio
    assert f"the chain is {ratio:.1f}× cheaper" in text
    assert text.count("| base") == 3
    without = (write_report(chain).parent / "family.md").read_text()
    assert "By the plan, training each member alone costs" in without and "cheaper" not in without
    assert "was not measured: run the recipe with --independent" in without
    assert "independent training" not in without


@pytest.mark.plots
def test_a_run_without_any_trained_member_has_tables(tmp_path):
    folder = write_report(write_run(tmp_path / "run", members=(), finished=False)).parent
    assert "No member has been trained yet." in (folder / "family.md").read_text()
    assert json.loads((folder / "family.json").read_text())["acceleration_ratio"] is None
    assert not list(folder.glob("*.png"))
