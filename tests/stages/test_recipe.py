"""What a recipe means for the baseline."""

from __future__ import annotations

from pathlib import Path

from support.recipes import tiny_recipe


def test_twins_train_for_the_baseline_epochs_at_their_own_rates(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, members=2, baseline_epochs=5)
    small = recipe.members[1]
    small.training, small.training_alone = {"learning_rate": 1e-4, "warmup_steps": 2}, {"learning_rate": 1e-3}
    twin = recipe.as_independent().members[1]
    assert twin.epochs == 5
    assert twin.training == {"learning_rate": 1e-3, "warmup_steps": 2}
    assert small.training["learning_rate"] == 1e-4
