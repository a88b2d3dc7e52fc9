"""Pre-training paradigms, one file or folder each: what turns a family into training.

A task is a folder of its name here. It has `check_values`, which looks at values of `ChainConfig`, the
`FEATURE_LOSS_WEIGHT` that it takes where none is given, a `Task`, which trains, and a `Paradigm`, which is what
recipes know. All but the `Task` start no torch, so that plans are quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_chain.tasks.paradigm import Paradigm
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


def find_paradigm(name: str) -> type[Paradigm]:
    """What a recipe knows of a task in `TASKS`; starts no torch."""
    paradigm: type[Paradigm] = getattr(
        import_module(f"{__name__}.{name}.paradigm"), TASKS[name].removesuffix("Task") + "Paradigm"
    )
    return paradigm


def check_task_values(name: str, values: Mapping[str, Any]) -> None:
    """Checks values of `ChainConfig` as a task in `TASKS` takes them.

    Args:
        name (`str`): the task.
        values (`Mapping`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    import_module(f"{__name__}.{name}").check_values(values)
