"""What a recipe says of its batches is what its collator makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hf_chain.data.chat import ChatCollator, ResponseReweighting
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.recipe import GraftRecipe
from support.chat_models import talk, tiny_vlm
from support.graft_recipes import tiny_graft_values

ROWS = [talk(f"<image>\nis it {number}?", "no", "why?", "it is large and red", images=1) for number in range(8)]
SAID: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "reweighting_order": ({"reweighting_order": 2.0}, {"reweighting": ResponseReweighting(order=2.0)}),
    "image_prompts": ({"image_prompts": True, "seed": 5}, {"image_prompts": True, "seed": 5}),
    "special_tokens_in_loss": ({"stages__0__special_tokens_in_loss": False}, {"special_tokens_in_loss": False}),
    "pack_tokens": ({"pack_tokens": 512, "max_length": 256}, {"packing": True, "max_length": 256}),
    "max_length": ({"max_length": 30}, {"max_length": 30}),
}
"""Values of a recipe, and the collator's own arguments that they stand for."""


@pytest.mark.parametrize("said", SAID)
def test_a_recipes_values_reach_its_collator(said: str, tmp_path: Path) -> None:
    values, options = SAID[said]
    recipe, (_, processor) = GraftRecipe.model_validate(tiny_graft_values(tmp_path, **values)), tiny_vlm()
    found = Conversations(recipe).collator(processor, recipe.stages[0])(ROWS)
    expected, plain = (ChatCollator(processor, **given)(ROWS) for given in (options, {}))
    assert same(found, expected)
    assert same(found, plain) == (said == "nothing")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two batches hold the same tensors."""
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])) for name, value in one.items()
    )
