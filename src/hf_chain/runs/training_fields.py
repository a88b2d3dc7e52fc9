"""Checks of the `training` sections of recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hf_chain.errors import HfChainError
from hf_chain.runs.recipe_file import suggestion

RUNNER_FIELDS = {
    "output_dir": "use `output_dir` and `name` of the recipe",
    "num_train_epochs": "use `epochs`",
    "task": "use `task` of the recipe",
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
    "local_rank": "the launcher knows it",
    "enable_jit_checkpoint": "SIGTERM saves a checkpoint by itself",
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "use `hf-chain run` and `hf-chain eval`"),
    **dict.fromkeys(
        (
            "eval_steps",
            "eval_delay",
            "eval_do_concat_batches",
            "eval_use_gather_object",
            "eval_accumulation_steps",
            "per_device_eval_batch_size",
            "prediction_loss_only",
            "include_for_metrics",
            "batch_eval_metrics",
            "bf16_full_eval",
            "fp16_full_eval",
            "metric_for_best_model",
            "greater_is_better",
            "label_names",
        ),
        "models are evaluated by the runner, see `evaluation`",
    ),
    **dict.fromkeys(
        ("hub_model_id", "hub_strategy", "hub_always_push", "hub_revision"), "use the section `hub` of the recipe"
    ),
}
"""Fields that the runner fills, and what to use instead."""


def check_training(
    values: Mapping[str, Any],
    where: str,
    config: type,
    check: Callable[[dict[str, Any]], None],
    own: Iterable[str] | None = None,
) -> None:
    """Checks one `training` section.

    Args:
        values (`Mapping`): its fields, over those of the recipe.
        where (`str`): its place in the recipe.
        config (`type[TrainingArguments]`): what they are fields of.
        check (`Callable`): checks the values themselves.
        own (`Iterable[str]`, *optional*): the fields that stand in it; by default all of them.

    Raises:
        ValueError: naming the place, the field and what is allowed.
    """
    from hf_chain.arguments.field_checks import check_needed, fields_of

    values, known = dict(values), fields_of(config)
    folder = values.pop("logging_dir", None)
    if folder is not None and not (isinstance(folder, str) and folder):
        raise ValueError(f"{where}.logging_dir is {folder!r}; give the folder that trackers write to, as a text")
    for name in values:
        if name in RUNNER_FIELDS:
            raise ValueError(f"{where}.{name} is set by the runner; {RUNNER_FIELDS[name]}")
        if name not in known:
            raise ValueError(f"{where}.{name} is unknown{suggestion(name, list(known))}")
    try:
        check(values)
        check_needed(config, values if own is None else own, values)
    except HfChainError as error:
        raise ValueError(f"{where}.{error}") from error
