"""Curves of quality against cost: what is read off them, by hand."""

from __future__ import annotations

import math

import pytest

from hf_chain.methods.chain.comparison.curves import Curve, Reading, Spread, total

LOSS = [(400, 3.0), (100, 4.0), (1600, 2.8)]


def test_a_quality_costs_what_lies_between_two_points_on_a_logarithmic_axis() -> None:
    curve = Curve(LOSS, lower_is_better=True)
    # Half way from 4.0 to 3.0, and so half way from 100 to 400 in logarithms.
    assert curve.cost_of(3.5) == Reading(pytest.approx(200))
    assert curve.cost_of(2.9) == Reading(pytest.approx(800))
    assert curve.cost_of(3.25).value == pytest.approx(100 * 4**0.75)
    assert curve.cost_of(3.0) == Reading(pytest.approx(400))


def test_beyond_its_ends_a_curve_gives_bounds() -> None:
    curve = Curve(LOSS, lower_is_better=True)
    assert curve.cost_of(2.79) == Reading(1600, "≥")
    assert curve.cost_of(4.01) == Reading(100, "≤")
    assert curve.cost_of(4.0) == Reading(100) and curve.cost_of(2.8) == Reading(1600)
    assert curve.quality_at(97) is None
    assert curve.quality_at(1700) == Reading(2.8, "≥")
    # Within two percent a cost is the same.
    assert curve.quality_at(99) == Reading(4.0) and curve.quality_at(1610) == Reading(2.8)


def test_quality_at_a_cost() -> None:
    curve = Curve(LOSS, lower_is_better=True)
    assert curve.quality_at(200) == Reading(pytest.approx(3.5))
    assert curve.quality_at(100 * math.sqrt(2)) == Reading(pytest.approx(3.75))
    assert curve.quality_at(400) == Reading(pytest.approx(3.0))
    assert curve.end == 2.8 and (curve.first_cost, curve.last_cost) == (100, 1600)


def test_a_share_is_better_when_it_is_higher() -> None:
    curve = Curve([(10, 0.2), (1000, 0.6)], lower_is_better=False)
    assert curve.cost_of(0.4) == Reading(pytest.approx(100))
    assert curve.cost_of(0.7) == Reading(1000, "≥") and curve.cost_of(0.1) == Reading(10, "≤")
    assert curve.quality_at(100) == Reading(pytest.approx(0.4))


def test_a_training_that_becomes_worse_keeps_its_best() -> None:
    curve = Curve([(100, 4.0), (200, 3.0), (400, 3.4), (800, 2.0)], lower_is_better=True)
    assert curve.quality_at(400) == Reading(3.0) and curve.quality_at(300) == Reading(3.0)
    # 3.4 was reached on the way to 3.0 and not again at 400; better than 3.0 only after it.
    assert curve.cost_of(3.4).value == pytest.approx(100 * 2**0.6)
    assert curve.cost_of(2.5).value == pytest.approx(400 * math.sqrt(2))
    assert Curve([(5, 3.0), (5, 2.0)], lower_is_better=True).cost_of(2.5) == Reading(5, "≤")


def test_what_the_last_doubling_brought() -> None:
    assert Curve(LOSS, lower_is_better=True).gain_of_last_doubling() == pytest.approx(0.1)
    assert Curve([(10, 0.2), (20, 0.5)], lower_is_better=False).gain_of_last_doubling() == pytest.approx(0.3)
    assert Curve([(10, 3.0), (15, 2.0)], lower_is_better=True).gain_of_last_doubling() is None


def test_seeds_have_a_mean_and_its_error() -> None:
    spread = Spread.of({1: Reading(2.0), 0: 4.0, 2: Reading(6.0), 3: None})
    assert spread is not None and list(spread.seeds) == [0, 1, 2]
    # Deviations 0, -2, 2: a variance of 8 / 2, over three seeds.
    assert spread.mean == 4 and spread.standard_error == pytest.approx(math.sqrt(4 / 3))
    assert Spread.of({0: None}) is None
    one = Spread.of({0: 4.0})
    assert one is not None and one.standard_error is None
    assert one.to_json() == {
        "mean": 4.0,
        "standard_error": None,
        "bound": "",
        "seeds": {"0": {"value": 4.0, "bound": ""}},
    }


def test_bounds_stay_bounds() -> None:
    spread = Spread({0: Reading(2.0, "≥"), 1: Reading(4.0)})
    assert (spread.mean, spread.bound, spread.standard_error) == (3.0, "≥", None)
    assert Spread({0: Reading(2.0, "≥"), 1: Reading(4.0, "≤")}).bound == "?"
    assert total([Reading(1, "≤"), Reading(2)]) == Reading(3, "≤") and total([]) == Reading(0)
    assert Reading(4.0, "≥").over(2) == Reading(2.0, "≥")
    assert Reading(4.0, "≥").under(8) == Reading(2.0, "≤")
    assert Reading(4.0, "?").under(8) == Reading(2.0, "?")
