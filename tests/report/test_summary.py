"""The derived numbers of a report are those one computes from the ledger by hand."""

from __future__ import annotations

import pytest

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.report.summary import summarize
from support.report_runs import ALONE_TOP1, EPOCHS, EVALUATION, MACS, SAMPLES, SHAPES, TOP1, write_run

CHAIN = {
    "tiny": 3 * MACS["tiny"] * SAMPLES * 24 + 2 * EVALUATION * MACS["tiny"],
    "small": (3 * MACS["small"] + MACS["tiny"]) * SAMPLES * 8 + 2 * EVALUATION * MACS["small"],
    "base": (3 * MACS["base"] + MACS["small"]) * SAMPLES * 6 + 2 * EVALUATION * MACS["base"],
}
ALONE = {name: (3 * SAMPLES * EPOCHS["tiny"] + 2 * EVALUATION) * MACS[name] for name in SHAPES}


def test_costs_count_teachers_and_evaluations(chain):
    family = summarize(chain)
    assert {member.name: member.chain_macs for member in family.members} == CHAIN
    assert {member.name: member.alone_macs for member in family.members} == ALONE
    assert family.acceleration_ratio == pytest.approx(sum(ALONE.values()) / sum(CHAIN.values()))
    assert family.members[0].share_of_alone == 1.0
    assert not family.alone_is_measured


def test_a_baseline_run_replaces_the_plan(chain, independent):
    family = summarize(chain, independent)
    assert family.alone_is_measured
    assert {member.name: member.alone_macs for member in family.members} == ALONE
    assert [family.after(member.twin) for member in family.members] == [ALONE_TOP1[name][1] for name in SHAPES]
    assert [family.after(member) for member in family.members] == [TOP1[name][1] for name in SHAPES]
    assert [family.before(member) for member in family.members] == [TOP1[name][0] for name in SHAPES]


def test_an_unfinished_run_promises_nothing_it_has_not_measured(tmp_path):
    family = summarize(write_run(tmp_path / "run", members=("tiny",), finished=False))
    assert [member.name for member in family.members] == list(SHAPES)
    assert [member.trained for member in family.members] == [True, False, False]
    assert family.chain_macs == CHAIN["tiny"]
    assert family.acceleration_ratio is None
    assert family.planned_ratio == 3.1


def test_a_baseline_run_is_not_compared_with_its_own_plan(independent):
    family = summarize(independent)
    assert family.acceleration_ratio is family.planned_ratio is None
    assert all(member.alone_macs is None for member in family.members)


def test_a_folder_without_a_ledger_is_refused(tmp_path):
    with pytest.raises(HfChainError, match=r"No ledger\.jsonl"):
        summarize(tmp_path)
