"""Checks of the `training` sections of recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hf_chain.errors import HfChainError
from hf_chain.stages.problems import suggestion

RUNNER_FIELDS = {
    "output_dir": "use `output_dir` and `name` of the recipe",
    "num_train_epochs": "use `epochs`",
    "max_steps": "use `epochs`",
    "seed": "use `seed` of the recipe",
    "data_seed": "use `seed` of the recipe",
    "push_to_hub": "use `hub.push`",
    "hub_token": "set HF_TOKEN, as recipes are published with their results",
    "resume_from_checkpoint": "a run goes on from its last checkpoint by itself",
    "eval_strategy": "models are evaluated by the runner, see `evaluation`",
    "load_best_model_at_end": "models are evaluated by the runner, see `evaluation`",
    "use_cpu": "it follows from the machine",
    "remove_unused_columns": "the collator needs every column",
    "eval_on_start": "models are evaluated by the runner, see `evaluation`",
    "save_only_model": "a run goes on from whole checkpoints",
    "ignore_data_skip": "a run goes on with the rows that are left",
    "stage": "use `name` of the stage",
    "parts": "use `parts` of the stage",
}
"""Fields that the runner fills, and what to use instead."""


def check_training(
    values: Mapping[str, Any], where: str, known: Mapping[str, Any], check: Callable[[dict[str, Any]], None]
) -> None:
    """Checks one `training` section.

    Args:
        values (`Mapping`): its fields.
        where (`str`): its place in the recipe.
        known (`Mapping`): every field there is.
        check (`Callable`): checks the values themselves.

    Raises:
        ValueError: naming the place, the field and what is allowed.
    """
    for name in values:
        if name in RUNNER_FIELDS:
            raise ValueError(f"{where}.{name} is set by the runner; {RUNNER_FIELDS[name]}")
        if name not in known:
            raise ValueError(f"{where}.{name} is unknown{suggestion(name, list(known))}")
    try:
        check(dict(values))
    except HfChainError as error:
        raise ValueError(f"{where}.{error}") from error
