"""Criteria find the layers that a trajectory was made to be cut at, and keep to the budget."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.grafting.criteria import CRITERIA, choose_ranges, fit_trajectory, fit_two_segments
from hf_chain.grafting.ranges import Budget, LayerRange, check_ranges, kept_layers
from support.trajectories import made_trajectory, plateau_and_fall

many = settings(max_examples=40, deadline=None, derandomize=True)


def refused(message: str) -> AbstractContextManager[object]:
    return pytest.raises(HfChainError, match=f"(?-s:^.*{message}.*$)")


@pytest.mark.parametrize(("layers", "first", "last"), [(28, 16, 26), (32, 17, 30), (80, 40, 78), (36, 22, 34)])
def test_the_published_ranges_are_those_of_curves_that_fall_from_there(layers: int, first: int, last: int) -> None:
    trajectory = made_trajectory(plateau_and_fall(layers, first))
    assert choose_ranges(trajectory) == (LayerRange(first, last),)


@many
@given(
    layers=st.integers(6, 80),
    share=st.floats(0, 1),
    slopes=st.tuples(st.floats(-0.05, 0.5), st.floats(-2, -0.1)),
    keep_last=st.integers(1, 2),
    seed=st.integers(0, 2**31),
)
def test_two_segments_find_the_break(
    layers: int, share: float, slopes: tuple[float, float], keep_last: int, seed: int
) -> None:
    end = layers - 1 - keep_last
    knot = 2 + round(share * (end - 3))
    states = np.arange(layers + 1)
    distances = 100 + slopes[0] * states + (slopes[1] - slopes[0]) * np.maximum(0, states - knot)
    # What the embeddings and the layers that stay predict is no matter of where to cut.
    distances[0], distances[layers - keep_last + 1 :] = 300, 0
    assert choose_ranges(made_trajectory(distances), keep_last=keep_last) == (LayerRange(knot, end),)
    noise = 0.01 * (slopes[0] - slopes[1]) * np.random.default_rng(seed).normal(size=layers + 1)
    (noisy,) = choose_ranges(made_trajectory(distances + noise), keep_last=keep_last)
    assert abs(noisy.first - knot) <= 1
    fit = fit_trajectory(made_trajectory(distances), keep_last)
    assert fit.slopes == pytest.approx(slopes, abs=1e-9)
    assert fit.falls_at_knot


def test_a_trajectory_without_a_plateau_is_cut_where_its_fall_slows_down_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logging.enable_propagation()
    try:
        chosen = choose_ranges(made_trajectory([8, 6, 4, 2, 1.6, 1.2, 0.8, 0.4, 0]))
    finally:
        logging.disable_propagation()
    assert chosen == (LayerRange(3, 6),)
    assert "some/target has no plateau that ends in a fall: its break, at layer 3" in caplog.text


@many
@given(
    criterion=st.sampled_from(["two_segment", "block_influence", "splice_error"]),
    layers=st.integers(5, 40),
    translators=st.integers(1, 2),
    keep_last=st.integers(1, 2),
    data=st.data(),
)
def test_choices_are_ranges_within_the_budget(
    criterion: str, layers: int, translators: int, keep_last: int, data: st.DataObject
) -> None:
    values = st.floats(0, 10)
    trajectory = made_trajectory(
        data.draw(st.lists(values, min_size=layers + 1, max_size=layers + 1)),
        block_influence=data.draw(st.lists(values, min_size=layers, max_size=layers)),
        layer_parameters=data.draw(st.lists(st.integers(1, 9), min_size=layers, max_size=layers)),
        layer_macs=data.draw(st.lists(st.integers(1, 9), min_size=layers, max_size=layers)),
        other_macs=5,
    )
    smallest = [*range(translators), *range(layers - keep_last, layers)]
    budget = data.draw(
        st.one_of(
            st.integers(trajectory.parameters(smallest), trajectory.parameters()).map(lambda n: Budget(parameters=n)),
            st.integers(len(smallest), layers).map(lambda n: Budget(layers=n)),
            st.just(Budget(macs_share=trajectory.sample_macs(smallest) / trajectory.sample_macs() + 1e-9)),
        )
    )
    errors = (lambda span: float(span.first)) if criterion == "splice_error" else None
    chosen = choose_ranges(
        trajectory, criterion, budget=budget, translators=translators, keep_last=keep_last, splice_errors=errors
    )
    assert check_ranges(chosen, layers, translators) == chosen
    assert chosen[-1].last < layers - keep_last
    assert budget.allows(trajectory, kept_layers(chosen, layers, translators))


def test_a_budget_moves_the_break_to_an_earlier_layer_but_to_no_later_one() -> None:
    trajectory = made_trajectory(plateau_and_fall(28, 16))
    assert choose_ranges(trajectory, budget=Budget(layers=24)) == (LayerRange(16, 26),)
    assert choose_ranges(trajectory, budget=Budget(layers=12)) == (LayerRange(10, 26),)
    # 500 parameters outside of the layers, 100 in each.
    assert choose_ranges(trajectory, budget=Budget(parameters=1_750)) == (LayerRange(10, 26),)
    # 2,000 MACs in the head, 1,000 in each layer: half of 30,000 leaves 13 layers.
    assert choose_ranges(trajectory, budget=Budget(macs_share=0.5)) == (LayerRange(11, 26),)


def test_block_influence_drops_the_least_influential_block() -> None:
    influence = [0.9, 0.5, 0.3, 0.1, 0.1, 0.1, 0.3, 0.01, 0.4, 0.6]
    trajectory = made_trajectory(range(11), block_influence=influence)

    def chosen(layers: int, **arguments: int) -> LayerRange:
        (span,) = choose_ranges(trajectory, "block_influence", budget=Budget(layers=layers), **arguments)
        return span

    # The translator stands before the dropped block 3-5.
    assert chosen(7) == LayerRange(2, 5)
    assert chosen(7, translators=2) == LayerRange(1, 5)
    assert chosen(9) == LayerRange(6, 7)
    assert chosen(4, keep_last=3) == LayerRange(0, 6)


def test_splice_error_takes_the_least_error_of_each_dropped_layer() -> None:
    trajectory = made_trajectory(plateau_and_fall(12, 6))
    measured = {LayerRange(3, 6): 0.3, LayerRange(5, 10): 0.4, LayerRange(4, 5): 0.15, LayerRange(8, 11): 0.0}
    assert choose_ranges(trajectory, "splice_error", splice_errors=measured) == (LayerRange(5, 10),)
    asked = []

    def measure(span: LayerRange) -> float:
        asked.append(span)
        return abs(span.first - 4.2)

    budget = Budget(layers=8)
    assert choose_ranges(trajectory, "splice_error", budget=budget, splice_errors=measure) == (LayerRange(4, 8),)
    assert asked == [LayerRange(first, first + 4) for first in range(7)]
    with refused("compares ranges of one size: give a budget"):
        choose_ranges(trajectory, "splice_error", splice_errors=measure)
    with refused("no range in splice_errors meets the budget"):
        choose_ranges(trajectory, "splice_error", budget=Budget(layers=2), splice_errors=measured)


def test_explicit_ranges_are_taken_as_they_are() -> None:
    trajectory = made_trajectory(plateau_and_fall(12, 6))
    two = (LayerRange(2, 4), LayerRange(7, 10))
    for ranges in ("7-10,2-4", two, [*two]):
        assert choose_ranges(trajectory, "explicit", ranges=ranges) == two
    assert choose_ranges(trajectory, "explicit", ranges=two[0]) == two[:1]
    assert choose_ranges(trajectory, "explicit", ranges=two, budget=Budget(layers=7)) == two
    with refused("ranges 2-4, 7-10 leave more than 6 layers: give longer ranges or no budget"):
        choose_ranges(trajectory, "explicit", ranges=two, budget=Budget(layers=6))
    with refused("reaches outside of the model"):
        choose_ranges(trajectory, "explicit", ranges="7-12")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criterion": "eye"}, f"criterion='eye' is unknown: use one of {', '.join(CRITERIA)}"),
        ({"criterion": "explicit"}, "'explicit' has nothing to take: give ranges"),
        ({"criterion": "splice_error"}, "'splice_error' has no errors to compare: give splice_errors"),
        ({"criterion": "block_influence"}, "give a budget in parameters, macs_share or layers"),
        ({"ranges": "3-5"}, "ranges is not read by criterion 'two_segment': leave it out or use 'explicit'"),
        ({"splice_errors": {}}, "splice_errors is not read by criterion 'two_segment'"),
        ({"keep_last": 0}, "keep_last=0"),
        ({"translators": 0}, "translators=0"),
        ({"keep_last": 7}, "no range of the target's 8 layers drops a layer .* keep_last=7"),
        ({"keep_last": 6}, "needs 3 layers before the last 6, and the target has 8"),
        ({"budget": Budget(parameters=550)}, "no range of the target's 8 layers leaves 550 parameters"),
        ({"budget": Budget(layers=1)}, "leaves 1 layers"),
        ({"budget": Budget(macs_share=0.1)}, "leaves 10% of the MACs"),
    ],
)
def test_bad_requests_are_refused_in_one_line(arguments: dict, message: str) -> None:
    with refused(message):
        choose_ranges(made_trajectory(plateau_and_fall(8, 4)), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing is given: choose parameters, macs_share or layers"),
        ({"layers": 3, "parameters": 5}, "parameters and layers is given"),
        ({"layers": 0}, re.escape("budget layers=0 is impossible: give a number above 0")),
        ({"macs_share": 1.0}, "budget macs_share=1.0 is impossible: give a share between 0 and 1"),
        ({"macs_share": -0.5}, "macs_share=-0.5"),
        ({"macs_share": float("nan")}, "budget macs_share=nan is impossible"),
        ({"layers": "3"}, "budget layers='3' is impossible: give a number above 0"),
    ],
)
def test_bad_budgets_are_refused_in_one_line(arguments: dict, message: str) -> None:
    with refused(message):
        Budget(**arguments)


def test_the_fit_is_the_best_of_all_knots() -> None:
    values = [5.0, 5.2, 4.9, 5.1, 3.0, 1.2, -1.1]
    fit = fit_two_segments(values, start=3)
    assert (fit.start, fit.knot) == (3, 6)
    assert len(fit.values) == len(values)
    for knot in range(1, len(values) - 1):
        x = np.arange(len(values))
        basis = np.stack([np.ones(len(x)), x, np.maximum(0, x - knot)], 1)
        residual = np.linalg.lstsq(basis, np.array(values), rcond=None)[1]
        assert ((np.array(fit.values) - values) ** 2).sum() <= residual.sum() + 1e-12
