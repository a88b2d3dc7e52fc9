"""Plans of chains start neither torch nor transformers, and say what both would say."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from hf_chain.arguments.precision import _without_torch, native_bfloat16
from hf_chain.cost import clip_macs, clip_memory, clip_parameters
from hf_chain.errors import HfChainError
from hf_chain.methods.chain.planning import family_cost
from hf_chain.methods.chain.recipe import load_recipe
from hf_chain.tasks.paradigm import DataSize
from hf_chain.tasks.values import UsualFields, check_values_of
from hf_chain.trainer import ChainConfig
from hf_chain.trainer.chain_config import check_values

RECIPES = Path(__file__).resolve().parents[3] / "examples" / "recipes"
WITHOUT_DATA = ("scenes", "scenes_encoder", "scenes_encoder_short", "cc3m_seven", "cc3m_tsbl", "merged15m_smbl")
PLAN = """
import json, sys
from hf_chain.cli.recipes import plan
plan(sys.argv[1], as_json=True)
print(json.dumps([name for name in ("torch", "transformers", "datasets", "hf_chain.grafting") if name in sys.modules]))
"""


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_a_plan_starts_no_torch_and_counts_as_with_it(name: str) -> None:
    path = RECIPES / f"{name}.yaml"
    done = subprocess.run([sys.executable, "-c", PLAN, path], check=True, stdout=subprocess.PIPE, text=True)
    *plan, started = done.stdout.splitlines()
    assert json.loads(started) == []
    recipe = load_recipe(path)
    for member, planned, printed in zip(
        recipe.members, family_cost(recipe).members, json.loads("\n".join(plan))["members"], strict=True
    ):
        assert printed["parameters"] == clip_parameters(recipe.paradigm.checked_config(member))
        assert printed["macs_per_sample"] == planned.macs_per_sample


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_what_is_counted_is_the_configuration_that_is_built(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    for member in recipe.members:
        size = DataSize(1, recipe.tokenizer.vocab_size)
        counted, built = recipe.paradigm.planned_config(member, size), recipe.paradigm.checked_config(member)
        for tower in ("vision_config", "text_config"):
            own = vars(getattr(counted, tower))
            assert own == {field: getattr(getattr(built, tower), field) for field in own}
        assert counted.projection_dim == built.projection_dim
        assert clip_macs(counted, image_token_keep=0.5) == clip_macs(built, image_token_keep=0.5)
        assert clip_memory(counted, 8, captions=2, bf16=True) == clip_memory(built, 8, captions=2, bf16=True)


def test_usual_fields_have_the_types_and_defaults_of_the_configuration() -> None:
    hints, own = get_type_hints(ChainConfig), get_type_hints(UsualFields)
    defaults = {field.name: field.default for field in fields(ChainConfig)}
    for field in fields(UsualFields):
        assert field.default is not MISSING and field.default == getattr(
            defaults[field.name], "value", defaults[field.name]
        ), field.name
        enums = [kind for kind in get_args(hints[field.name]) if isinstance(kind, type) and issubclass(kind, Enum)]
        if enums:
            assert set(get_args(own[field.name])) <= {choice.value for choice in enums[0]}, field.name
        else:
            hint = hints[field.name]
            assert own[field.name] == getattr(hint, "stands_for", hint), field.name


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": -1.0},
        {"warmup_steps": 3.5},
        {"per_device_train_batch_size": 10, "micro_batch_size": 4},
        {"micro_batch_size": 3},
        {"bf16": "yes"},
        {"feature_loss_schedule": "steep"},
        {"image_token_keep": 0.0},
        {"adam_beta2": 1.0},
        {"gradient_accumulation_steps": 2},
        {"save_total_limit": True},
        {"lr_scheduler_type": "none"},
    ],
    ids=str,
)
def test_what_is_refused_is_refused_as_by_the_configuration(values: dict[str, Any]) -> None:
    with pytest.raises(HfChainError):
        check_values_of(UsualFields, values)
    with pytest.raises(HfChainError):
        check_values(values)


def test_bfloat16_is_known_without_torch() -> None:
    assert _without_torch(use_cpu=True) in (None, native_bfloat16(use_cpu=True))
