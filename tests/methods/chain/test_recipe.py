"""What a recipe means for the baseline."""

from __future__ import annotations

from pathlib import Path

from hf_chain.methods.chain.recipe import Recipe
from support.recipes import tiny_values


def test_twins_train_for_the_baseline_epochs_at_their_own_rates(tmp_path: Path) -> None:
    values = tiny_values(tmp_path, members=2) | {"baseline_epochs": 5}
    grown = {"training": {"learning_rate": 1e-4, "warmup_steps": 2}, "training_alone": {"learning_rate": 1e-3}}
    values["members"][1] |= grown
    twin = Recipe.model_validate(values).as_independent().members[1]
    assert twin.epochs == 5
    assert twin.training == {"learning_rate": 1e-3, "warmup_steps": 2}
