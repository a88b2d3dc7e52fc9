"""Forecasts of families: a law that pilots obey is found again, and the schedule is the best there is."""

from __future__ import annotations

import json
import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hf_chain.commands.forecast import Wish, budget_macs, forecast
from hf_chain.errors import HfChainError
from hf_chain.methods.chain.forecast.law import Handed, Law, Point, fit_law
from hf_chain.methods.chain.forecast.proposal import Candidate, Forecast
from hf_chain.methods.chain.recipe import load_recipe
from hf_chain.runs.ledger import Ledger
from support.command_line import Command

TRUE = Law(2.0, 30, 0.25, 900, 0.45, efficiency=3.0)
SIZES = {"xs": 1e6, "s": 4e6, "m": 16e6}
FAMILY = [Candidate(name, size, 3 * size, decay=0.15) for name, size in SIZES.items()]


def pilots(law: Law = TRUE, sizes: Any = (1e6, 4e6, 16e6), lengths: Any = (4e3, 8e3, 16e3, 32e3)) -> list[Point]:
    return [
        Point(size, samples, float(law.loss(size, samples)), curve=str(size))
        for size, samples in product(sizes, lengths)
    ]


def grown(law: Law, handed: float, samples: float, decay: float = 0.2) -> Point:
    """What a member comes to that grows from the trunk of one that was delivered with `handed`."""
    trunk = float(law.samples(1e6, handed)) * (1 - decay)
    loss = float(law.grown_loss(4e6, float(law.loss(1e6, trunk)), samples))
    return Point(4e6, samples, loss, Handed(1e6, handed, decay), "grown")


def test_a_law_that_pilots_obey_is_found_again() -> None:
    law = fit_law([*pilots(), *(grown(TRUE, 12.0, samples) for samples in (2e3, 8e3))])
    for name in ("floor", "size_factor", "size_exponent", "samples_factor", "samples_exponent"):
        assert getattr(law, name) == pytest.approx(getattr(TRUE, name), rel=1e-3), name
    assert law.efficiency == pytest.approx(3.0, rel=0.02) and law.grown == 2
    assert law.error < 1e-3 and law.sizes == 3
    # Where nothing has grown, nothing is known of it.
    assert (fit_law(pilots()).efficiency, fit_law(pilots()).grown) == (1.0, 0)


def test_its_error_is_what_it_is_off_at_lengths_that_it_has_not_seen() -> None:
    points = pilots()
    last = [point for point in points if point.samples == 32e3]
    off = [Point(point.size, point.samples, point.loss + 0.5, curve=point.curve) for point in last]
    law = fit_law([point for point in points if point not in last] + off)
    assert law.error == pytest.approx(0.5, rel=0.05)
    assert math.isnan(fit_law([Point(1e6, n, float(TRUE.loss(1e6, n)), curve=str(n)) for n in (1e3, 2e3, 4e3)]).error)


def test_one_size_gives_a_law_of_that_size() -> None:
    law = fit_law(pilots(sizes=[1e6]))
    assert law.loss(1e6, 64e3) == pytest.approx(float(TRUE.loss(1e6, 64e3)), rel=1e-3)
    with pytest.raises(HfChainError, match="2 points of trainings from scratch are too few"):
        fit_law(pilots(sizes=[1e6])[:2])


def test_inverses() -> None:
    assert TRUE.samples(4e6, float(TRUE.loss(4e6, 12_345.0))) == pytest.approx(12_345.0)
    assert TRUE.samples(4e6, TRUE.least(4e6)) == math.inf
    samples = float(TRUE.grown_samples(4e6, 12.0, 8.0))
    assert TRUE.grown_loss(4e6, 12.0, samples) == pytest.approx(8.0)


@pytest.fixture(scope="module")
def known() -> Forecast:
    return Forecast(TRUE, FAMILY, 1e5)


@pytest.mark.parametrize("macs", [1e13, 1e14, 1e15])
def test_no_schedule_on_the_grid_is_better(known: Forecast, macs: float) -> None:
    found = known.best_for(macs)
    assert found.macs <= macs
    best = math.inf
    # Every schedule of a coarser grid, priced from the law alone.
    grid = known.losses[::6]
    for first, second in product(grid, grid):
        cost = FAMILY[0].macs * float(TRUE.samples(1e6, first))
        for small, large, start, end in ((FAMILY[0], FAMILY[1], first, second),):
            cost, ahead = step(small, large, start, end, cost)
        if not ahead or not cost <= macs:
            continue
        for third in grid:
            whole, uses = step(FAMILY[1], FAMILY[2], second, third, cost)
            if uses and whole <= macs:
                best = min(best, third)
    assert found.loss <= best


def step(small: Candidate, large: Candidate, start: float, end: float, cost: float) -> tuple[float, bool]:
    trunk = float(TRUE.samples(small.size, start)) * (1 - small.decay)
    samples = float(TRUE.grown_samples(large.size, float(TRUE.loss(small.size, trunk)), end))
    if not math.isfinite(samples):
        return math.inf, False
    continued = min(start, float(TRUE.loss(small.size, trunk + samples * large.macs / small.macs)))
    return cost + large.macs * samples, samples > 0 and end < continued


def test_every_member_uses_its_size(known: Forecast) -> None:
    found = known.best_for(1e14)
    for before, leg in zip(found.legs, found.legs[1:], strict=False):
        # The branch that delivered the one before is not in its trunk.
        size = SIZES[before.name]
        trunk = 0.85 * float(TRUE.samples(size, before.reaches))
        assert leg.begins == pytest.approx(float(TRUE.loss(size, trunk)))
        assert leg.reaches < leg.continued <= before.reaches
    assert found.family_ratio == pytest.approx(sum(leg.twin_macs for leg in found.legs) / found.macs)
    again = known.cheapest_to(found.loss)
    assert again.macs <= found.macs and again.loss <= found.loss
    strict = Forecast(TRUE, FAMILY, 1e5, margin=0.05).best_for(1e14)
    assert all(leg.reaches + 0.05 < leg.continued for leg in strict.legs[1:])


def test_what_cannot_be_had_is_said(known: Forecast) -> None:
    with pytest.raises(HfChainError, match=r"reaches 1, the best comes to"):
        known.cheapest_to(1.0)
    with pytest.raises(HfChainError, match=r"in no schedule of 1e\+03 MACs does every member use its size"):
        known.best_for(1e3)


@pytest.mark.parametrize(
    ("budget", "options", "macs"),
    [
        ("500T", {}, 5e14),
        ("1.5e15", {}, 1.5e15),
        ("2h", {"tflops": 10}, 2 * 3600 * 5e12),
        ("20USD", {"tflops": 10, "price": 2.5}, 8 * 3600 * 5e12),
    ],
    ids=str,
)
def test_budgets(budget: str, options: dict[str, float], macs: float) -> None:
    assert budget_macs(budget, options.get("tflops"), options.get("price")) == pytest.approx(macs)


@pytest.mark.parametrize(
    ("budget", "message"),
    [("much", "give MACs"), ("0T", "give MACs"), ("1.2.3T", "give MACs"), ("2h", "give --tflops")],
)
def test_budgets_that_are_none(budget: str, message: str) -> None:
    with pytest.raises(HfChainError, match=message):
        budget_macs(budget, None, None)
    with pytest.raises(HfChainError, match="give --price"):
        budget_macs("3USD", 1.0, None)


RECIPE = {
    "name": "family",
    "task": "causal_lm",
    "family": "llama",
    "tokenizer": {"vocab_size": 400},
    "data": {"source": "stories", "row_tokens": 32, "samples_per_epoch": 10_000},
    "model": {"head_size": 8, "tie_word_embeddings": True, "max_position_embeddings": 32},
    "training": {"trunk_decay": 0.15, "feature_loss_weight": 0},
    "members": [
        {"name": "xs", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 1},
        {"name": "s", "hidden_size": 32, "num_hidden_layers": 2, "epochs": 1},
        {"name": "m", "hidden_size": 64, "num_hidden_layers": 3, "epochs": 1},
    ],
}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def write_pilots(recipe: Path, law: Law) -> list[Path]:
    """Ledgers of trunks that were trained on, of every size of the recipe, whose losses are a law's."""
    from hf_chain.methods.chain.planning import family_cost

    folders = []
    for planned in family_cost(load_recipe(recipe)).members:
        folder, total = recipe.parent / f"pilot-{planned.name}", 0.0
        ledger = Ledger(folder)
        members = [{"name": f"{planned.name}-{n}", "hidden_size": planned.parameters} for n in range(4)]
        ledger.append("run_started", recipe={**RECIPE, "members": members}, plan={}, environment={})
        for number, one in enumerate(members):
            own = 1_000 * 2**number
            parent = members[number - 1]["name"] if number else None
            ledger.append(
                "started",
                one["name"],
                index=number,
                parent=parent,
                parameters=planned.parameters,
                macs_per_sample=planned.macs_per_sample,
                config_hash=planned.name,
            )
            macs = 3 * planned.macs_per_sample * own
            loss = float(law.loss(planned.macs_per_sample, total + own))
            trunk = {"steps": 1, "samples": round(0.85 * own), "training_macs": round(0.85 * macs)}
            ledger.append("trained", one["name"], samples=own, training_macs={"total": macs}, trunk=trunk)
            ledger.append("evaluated", one["name"], metrics_after={"validation": {"nats_per_token": loss}})
            ledger.append("saved", one["name"], weights_sha256=f"{planned.name}{number}")
            total += round(0.85 * own)
        folders.append(folder)
    return folders


def test_the_command_proposes_what_the_law_says(recipe: Path, hf_chain: Command) -> None:
    law = Law(1.0, 200, 0.35, 60, 0.4)
    folders = write_pilots(recipe, law)
    curves = [word for folder in folders for word in ("--curves", str(folder))]
    out = hf_chain("plan", str(recipe), *curves, "--quality", "3.9", "--json").out
    found = json.loads(out)
    assert found["metric"] == "nats_per_token" and found["law"]["error"] < 0.01
    assert found["law"]["samples_exponent"] == pytest.approx(0.4, abs=0.02)
    legs = found["proposal"]["members"]
    assert [leg["name"] for leg in legs] == ["xs", "s", "m"] and legs[-1]["reaches"] <= 3.9
    assert [value.partition("=")[0] for value in found["set"]] == [f"members.{n}.epochs" for n in ("xs", "s", "m")]
    load_recipe(recipe, found["set"])
    text = hf_chain("plan", str(recipe), *curves, "--budget", "1P").out
    twice = re.escape(f"{2 * found['law']['error']:.2g}")
    assert re.search(rf"delivered or trained on for as many MACs, by {twice} or more", text)
    assert "no pilot has grown" in text and "twins cost × as much" in text and "To run it: --set" in text


def test_what_is_asked_for_has_to_be_clear(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="neither --budget and --quality given"):
        forecast(load_recipe(recipe), Wish([str(tmp_path)]))
    with pytest.raises(HfChainError, match="No ledger.jsonl in"):
        forecast(load_recipe(recipe), Wish([str(tmp_path)], budget="1T"))


def test_losses_are_ordered(known: Forecast) -> None:
    assert (np.diff(known.losses) < 0).all()
