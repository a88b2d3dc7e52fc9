"""Pre-training paradigms, one file or folder each: what turns a family into training.

A task is a module of its name here. It has `check_values`, which looks at values of `ChainConfig`, and the
`FEATURE_LOSS_WEIGHT` that it takes where none is given, both without torch where plans are to be quick, and a `Task`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_chain.tasks.task import Task

TASKS = {
    "causal_lm": "CausalLMTask",
    "classification": "ClassificationTask",
    "contrastive": "ContrastiveTask",
}
"""Name of a task -> its class."""


def find_task(name: str) -> type[Task]:
    """The class of a task in `TASKS`."""
    task: type[Task] = getattr(import_module(f"{__name__}.{name}"), TASKS[name])
    return task


def feature_loss_weight(values: Mapping[str, Any]) -> float:
    """The weight of the feature loss: what fields of `ChainConfig` say, or the task's own.

    Args:
        values (`Mapping`): field names to values; those that are not there have their default.
    """
    given = values.get("feature_loss_weight")
    module = import_module(f"{__name__}.{values.get('task', 'contrastive')}")
    weight: float = module.FEATURE_LOSS_WEIGHT if given is None else given
    return weight


def used_fields(name: Any) -> tuple[str, ...]:
    """Fields of `TrainingArguments` that a task follows and most do not: its `USED`, where it has that."""
    used: tuple[str, ...] = getattr(import_module(f"{__name__}.{name}"), "USED", ()) if name in TASKS else ()
    return used


def check_task_values(name: str, values: Mapping[str, Any]) -> None:
    """Checks values of `ChainConfig` as a task in `TASKS` takes them.

    Args:
        name (`str`): the task.
        values (`Mapping`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    import_module(f"{__name__}.{name}").check_values(values)
