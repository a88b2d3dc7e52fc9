"""What `hf-chain plan --curves` does: a schedule for a budget, or to a quality, from runs that were made before."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from hf_chain.cost.table import PREFIXES
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from hf_chain.cost import MemberCost
    from hf_chain.methods.chain.chain_recipe import ChainRecipe
    from hf_chain.methods.chain.forecast.proposal import Candidate, Forecast, Proposal

FRONTIER = (0.1, 0.25, 0.5, 1, 2, 4, 10)
"""Of the proposal's MACs: what else is shown."""
MACS_OF_A_FLOP = 0.5
MARGIN = 2
"""Errors of the law by which a member is ahead of its predecessor: less than that it cannot tell."""


@dataclass(frozen=True)
class Wish:
    """What a forecast is asked for.

    Args:
        curves (`Sequence[str]`): folders of the runs that the law is fitted to.
        budget (`str`, *optional*): MACs such as `500T`, hours such as `20h`, or money such as `100USD`.
        quality (`float`, *optional*): what the largest member shall reach.
        tflops (`float`, *optional*): sustained throughput, for hours and money.
        price (`float`, *optional*): of an hour, for money.
        metric (`str`, *optional*): name of the metric; `None` takes the main one of the task.
        split (`str`): split that it was measured on.
        margin (`float`, *optional*): by how much each member has to be ahead of its predecessor, trained on or not;
            `None` takes `MARGIN` times the error of the law, where that is known.
    """

    curves: Sequence[str]
    budget: str | None = None
    quality: float | None = None
    tflops: float | None = None
    price: float | None = None
    metric: str | None = None
    split: str = "validation"
    margin: float | None = None


def forecast(recipe: ChainRecipe, wish: Wish) -> tuple[dict[str, Any], str]:
    """Proposes how long each member of a recipe is trained.

    Args:
        recipe (`ChainRecipe`): whose members and training are taken; its epochs are what is proposed.
        wish (`Wish`): what is asked for, with `budget` or `quality`.

    Returns:
        The forecast as a script wants it, and as Markdown for people.

    Raises:
        HfChainError: when nothing or too much is asked for, no law can be fitted, or no schedule does it.
    """
    from hf_chain.methods.chain.forecast.law import fit_law
    from hf_chain.methods.chain.forecast.pilots import loss_of, pilot_points
    from hf_chain.methods.chain.forecast.proposal import Forecast
    from hf_chain.methods.chain.forecast.words import (
        frontier_table,
        law_words,
        leaner_words,
        margin_words,
        overrides,
        proposal_table,
        to_json,
    )
    from hf_chain.methods.chain.planning import family_cost

    if (wish.budget is None) == (wish.quality is None):
        raise HfChainError(f"{'neither' if wish.budget is None else 'both'} --budget and --quality given: give one")
    macs = budget_macs(wish.budget, wish.tflops, wish.price) if wish.budget is not None else None
    points, metric = pilot_points(wish.curves, wish.metric, wish.split)
    law = fit_law(points)
    cost = family_cost(recipe)
    family = [
        _candidate(recipe, planned, member) for planned, member in zip(cost.members, recipe.members, strict=True)
    ]
    margin = wish.margin if wish.margin is not None else MARGIN * law.error if isfinite(law.error) else 0.0
    known = Forecast(law, family, max(point.samples for point in points), margin)
    found = known.best_for(macs) if macs is not None else known.cheapest_to(loss_of(wish.quality or 0.0, metric))
    frontier = list(_frontier(known, found))
    leaner = dict(_leaner(family, lambda rest: Forecast(law, rest, known.most_samples, margin), found))
    samples = cost.members[0].samples_per_epoch
    flags = " ".join(f"--set {value}" for value in overrides(found, samples))
    proposed = proposal_table(found, metric, samples, wish.tflops) + leaner_words(leaner)
    text = (
        f"{law_words(law, metric)}\n{margin_words(margin, metric)}\n\n{proposed}\n\n"
        f"What the family reaches for less and for more\n\n{frontier_table(frontier, metric)}\n\nTo run it: {flags}"
    )
    return {**to_json(law, metric, found, frontier, samples), "without": leaner}, text


def _candidate(recipe: ChainRecipe, planned: MemberCost, member: Any) -> Candidate:
    from hf_chain.methods.chain.forecast.proposal import Candidate

    training = recipe.training_of(member)
    decay = 0.0 if training.get("trunk_merge") else training.get("trunk_decay") or 0.0
    return Candidate(
        planned.name, planned.macs_per_sample, planned.training_macs["total"] / planned.samples, float(decay)
    )


def _leaner(
    family: Sequence[Candidate], forecast_of: Callable[[Sequence[Candidate]], Forecast], found: Proposal
) -> Iterator[tuple[str, float]]:
    """MACs of the family without a member between its first and its last, which ends as well as with it."""
    for number in range(1, len(family) - 1):
        with suppress(HfChainError):
            rest = [*family[:number], *family[number + 1 :]]
            yield family[number].name, forecast_of(rest).cheapest_to(found.loss).macs


def _frontier(known: Forecast, found: Proposal) -> list[Proposal]:
    proposals = []
    for share in FRONTIER:
        try:
            proposals.append(known.best_for(share * found.macs * (1 + 1e-9)))
        except HfChainError:
            # Less than that suffices for no family that uses its sizes.
            continue
    return proposals


def budget_macs(budget: str, tflops: float | None, price: float | None) -> float:
    """The MACs of a budget.

    Args:
        budget (`str`): MACs such as `500T`, hours such as `20h`, or money such as `100USD`.
        tflops (`float`, *optional*): sustained throughput in 10¹² floating-point operations a second.
        price (`float`, *optional*): of an hour.

    Raises:
        HfChainError: when it is none of these, or what they need is not given.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-zA-Z€$]*)\s*", budget)
    number, unit = (float(match[1]), match[2]) if match and match[1].count(".") < 2 else (0.0, "")
    if number <= 0:
        raise HfChainError(
            f"--budget is {budget!r}: give MACs such as 500T, hours such as 20h, or money such as 100USD"
        )
    if unit in PREFIXES:
        return number * 1000.0 ** PREFIXES.index(unit)
    if tflops is None:
        raise HfChainError(
            f"--budget is {budget!r}, hours or money of which only a throughput makes MACs: give --tflops"
        )
    if unit not in ("h", "hours"):
        if price is None:
            raise HfChainError(
                f"--budget is {budget!r}, money of which only a price makes hours: give --price of an hour"
            )
        number /= price
    return number * 3600 * tflops * 1e12 * MACS_OF_A_FLOP
