"""Rates by rules: from the width of a member, and whether it has grown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_chain.methods.chain.chain_recipe import ChainRecipe
from hf_chain.methods.chain.recipe import recipe_class
from support.recipes import tiny_values

LLAMA: dict[str, Any] = {
    "name": "tiny",
    "task": "causal_lm",
    "family": "llama",
    "data": {"source": "stories"},
    "model": {"head_size": 8},
    "members": [
        {"name": "xs", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 1},
        {"name": "s", "hidden_size": 64, "num_hidden_layers": 2, "epochs": 1},
        {"name": "m", "hidden_size": 64, "num_hidden_layers": 2, "epochs": 1, "training": {"learning_rate": 3e-4}},
    ],
    "training": {"learning_rate": 8e-3, "warmup_steps": 50},
}


def recipe(rates: dict[str, Any], **changes: Any) -> ChainRecipe:
    values = LLAMA | {"rates": rates} | changes
    return recipe_class(values).model_validate(values)


def fields(recipe: ChainRecipe, name: str) -> list[Any]:
    return [[recipe.training_of(m)[field] for m in recipe.members] for field in (name,)][0]


def test_rates_follow_from_widths_and_growth() -> None:
    found = recipe({"width_power": 0.5, "grown": 0.25, "grown_warmup": 0})
    # (16 / 64)^0.5 is a half; what a member says itself goes before the rules.
    assert fields(found, "learning_rate") == pytest.approx([8e-3, 8e-3 / 2 / 4, 3e-4])
    assert fields(found, "warmup_steps") == [50, 0, 0]
    # Trained from scratch nothing has grown, and widths are what they are.
    assert fields(found.as_independent(), "learning_rate") == pytest.approx([8e-3, 4e-3, 3e-4])
    assert fields(recipe({"width_power": 1, "base_width": 32}), "learning_rate") == pytest.approx([16e-3, 4e-3, 3e-4])
    assert fields(recipe({}), "learning_rate") == pytest.approx([8e-3, 8e-3, 3e-4])


def test_clips_and_lists_have_widths_too(tmp_path: Path) -> None:
    values = tiny_values(tmp_path) | {"rates": {"width_power": 1}}
    values["training"] = {**values["training"], "learning_rate": 1e-3}
    clip = recipe_class(values).model_validate(values)
    first, second = clip.members[:2]
    widths = [max(one.vision.hidden_size, one.text.hidden_size) for one in (first, second)]
    assert widths[0] < widths[1]
    assert clip.training_of(second)["learning_rate"] == pytest.approx(1e-3 * widths[0] / widths[1])
    stages = recipe(
        {"width_power": 1},
        task="classification",
        family="convnext",
        data={"source": "images"},
        model={},
        members=[
            {"name": "a", "hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2, "epochs": 1},
            {"name": "b", "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "epochs": 1},
        ],
    )
    assert fields(stages, "learning_rate") == pytest.approx([8e-3, 4e-3])


@pytest.mark.parametrize(
    ("rates", "changes", "message"),
    [
        ({"width_power": 3}, {}, "less than or equal to 2"),
        ({"grown": 0.5}, {"training": {}}, "rates has rules and training no learning_rate to begin with"),
        (
            {"width_power": 1},
            {"members": [{"name": "a", "num_hidden_layers": 1, "epochs": 1}] * 1},
            "members.a says no width by hidden_size",
        ),
    ],
    ids=str,
)
def test_rules_that_cannot_hold_are_refused(rates: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(rates, **changes)
