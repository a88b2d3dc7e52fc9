"""A graft against ordinary training: the published example, and what is refused."""

from __future__ import annotations

import math

import pytest

from hf_chain.cost.table import PUBLISHED, GraftComparison, comparison_rows, comparison_table
from hf_chain.errors import HfChainError


def test_the_published_hours_save_44_9_percent():
    assert PUBLISHED.total == pytest.approx(19.17)
    assert PUBLISHED.baseline_total == pytest.approx(34.79)
    assert f"{PUBLISHED.saving:.1%}" == "44.9%"
    text = comparison_table(PUBLISHED)
    assert "The graft costs 44.9 % less than the baseline: 19.17 against 34.79 hours." in text
    assert "26.8 % less than LoRA: 19.17 against 26.2 hours." in text


def test_every_stage_stands_on_its_side_and_the_sums_below():
    header, rows = comparison_rows(PUBLISHED)
    assert header == ["stage", "graft, hours", "baseline, hours"]
    assert ["graft", "0", ""] in rows
    assert ["alignment", "", "7.01"] in rows
    assert rows[-1] == ["all", "19.17", "34.79"]
    lines = comparison_table(PUBLISHED).split("\n\n")[0].splitlines()
    assert len({len(line) for line in lines}) == 1


def test_a_graft_that_costs_more_is_said_to():
    text = comparison_table(GraftComparison({"encoder": 3e9}, {"full": 2e9}, "MACs"))
    assert "costs 50.0 % more than the baseline: 3G against 2G MACs" in text


def test_a_script_gets_stages_and_totals():
    values = PUBLISHED.to_json()
    assert values["ours_total"] == sum(values["ours"].values())
    assert values["saving"] == PUBLISHED.saving
    assert (values["unit"], values["others"]) == ("hours", {"LoRA": 26.2})


@pytest.mark.parametrize(
    ("ours", "baseline", "message"),
    [
        ({"encoder": -1.0}, {"full": 1.0}, "ours: encoder costs -1.0: give hours"),
        ({"encoder": 1.0}, {"full": math.nan}, "baseline: full costs nan"),
        ({"encoder": math.inf}, {"full": 1.0}, "ours: encoder costs inf"),
        ({}, {"full": 1.0}, "ours costs nothing: give the hours of at least one stage"),
        ({"encoder": 1.0}, {"full": 0.0}, "baseline costs nothing"),
    ],
)
def test_costs_that_cannot_be_compared_are_named(ours, baseline, message):
    with pytest.raises(HfChainError, match=message):
        GraftComparison(ours, baseline)
