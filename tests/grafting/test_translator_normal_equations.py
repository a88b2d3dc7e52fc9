"""Ridge regression from sums equals ridge regression on all data at once."""

from __future__ import annotations

import pytest
import torch

from hf_chain.grafting.translator.normal_equations import GainedEquations, NormalEquations

TOKENS, FEATURES, OUTPUTS = 60, 7, 3


def problem(intercept: bool = False) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(TOKENS, FEATURES, generator=generator, dtype=torch.float64)
    residuals = torch.randn(TOKENS, OUTPUTS, generator=generator, dtype=torch.float64) + 5 * intercept
    return features, residuals, torch.rand(TOKENS, generator=generator, dtype=torch.float64)


def added_up(batches: int, intercept: bool = False) -> NormalEquations:
    sums = NormalEquations(FEATURES, OUTPUTS, intercept)
    for part in zip(*(value.chunk(batches) for value in problem(intercept)), strict=True):
        sums.add(*part)
    return sums


@pytest.mark.parametrize("intercept", [False, True])
def test_sums_over_batches_equal_all_at_once(intercept: bool) -> None:
    whole, streamed = added_up(1, intercept), added_up(7, intercept)
    solutions = [sums.solve(1e-3) for sums in (whole, streamed)]
    assert solutions[0] is not None and solutions[1] is not None
    torch.testing.assert_close(solutions[0], solutions[1], rtol=1e-12, atol=1e-12)
    assert streamed.error(solutions[1]) == pytest.approx(whole.error(solutions[0]), rel=1e-12)
    assert streamed.tokens == TOKENS


def test_solution_is_that_of_weighted_least_squares() -> None:
    features, residuals, weights = problem()
    root = weights.sqrt()[:, None]
    expected = torch.linalg.lstsq(features * root, residuals * root).solution
    found = added_up(3).solve(1e-14)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_ridge_is_relative_to_the_mean_diagonal() -> None:
    features, residuals, weights = problem()
    gram = features.T @ (features * weights[:, None])
    penalty = 0.1 * gram.diagonal().mean() * torch.eye(FEATURES, dtype=torch.float64)
    expected = torch.linalg.solve(gram + penalty, features.T @ (residuals * weights[:, None]))
    found = added_up(3).solve(0.1)
    assert found is not None
    torch.testing.assert_close(found, expected)


def test_error_of_a_solution_needs_the_sums_alone() -> None:
    features, residuals, weights = problem()
    solution = torch.ones(FEATURES, OUTPUTS, dtype=torch.float64)
    expected = (weights * (residuals - features @ solution).square().sum(1)).sum().item()
    assert added_up(4).error(solution) == pytest.approx(expected)


def test_intercept_has_no_penalty() -> None:
    sums = NormalEquations(1, 1, intercept=True)
    sums.add(torch.tensor([[-1.0], [1.0]]), torch.tensor([[3.0], [3.0]]), torch.ones(2))
    solution = sums.solve(1e6)
    assert solution is not None
    torch.testing.assert_close(solution[-1:], torch.tensor([[3.0]], dtype=torch.float64))


def test_too_few_tokens_have_a_solution_with_a_ridge_only() -> None:
    sums = NormalEquations(FEATURES, OUTPUTS)
    features, residuals, weights = problem()
    sums.add(features[:3], residuals[:3], weights[:3])
    assert sums.solve(0.0) is None
    assert sums.solve(1e-6) is not None


def test_gains_weigh_every_channel_and_leave_one_ridge() -> None:
    features, residuals, weights = problem()
    gains = torch.tensor([2.0, 0.01, 0.0], dtype=torch.float64)
    sums = GainedEquations(FEATURES, gains)
    for part in zip(*(value.chunk(4) for value in problem()), strict=True):
        sums.add(*part)
        sums.solve(0.1)
    found = sums.solve(0.1)
    gram = features.T @ (features * weights[:, None])
    ridge = 0.1 * gains.square().mean() * gram.diagonal().mean() * torch.eye(FEATURES, dtype=torch.float64)
    for channel, gain in enumerate(gains):
        cross = gain * features.T @ (residuals[:, channel] * weights)
        torch.testing.assert_close(found[:, channel], torch.linalg.solve(gain**2 * gram + ridge, cross))
    expected = (weights * (residuals - gains * (features @ found)).square().sum(1)).sum().item()
    assert sums.error(found) == pytest.approx(expected)
    assert not GainedEquations(FEATURES, 0 * gains).solve(0.1).any()
