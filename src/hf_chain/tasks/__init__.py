"""Pre-training paradigms, one file or folder each: what turns a family into training.

A task is a folder of its name here. It has `check_values`, which looks at values of `ChainConfig`, the
`FEATURE_LOSS_WEIGHT` that it takes where none is given, a `Task`, which trains, and a `Paradigm`, which is what
recipes know. All but the `Task` start no torch, so that plans are quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from hf_chain.tasks.paradigm import Paradigm
    from hf_chain.tasks.task import Task

TASKS: dict[str, str | type[Task]] = {
    "causal_lm": "CausalLMTask",
    "classification": "ClassificationTask",
    "contrastive": "ContrastiveTask",
    "masked_image": "MaskedImageTask",
    "multi_label": "MultiLabelTask",
    "sigmoid": "SigmoidTask",
}
"""Name of a task -> its class, by name where its folder is here."""


def find_task(name: str) -> type[Task]:
    """The class of a task in `TASKS`."""
    known = TASKS[name]
    task: type[Task] = getattr(_said_by(name), known) if isinstance(known, str) else known
    return task


def _said_by(name: str) -> Any:
    """What says the values of a task: its folder, or a class that is not from here itself."""
    known = TASKS[name]
    return import_module(f"{__name__}.{name}") if isinstance(known, str) else known


def feature_loss_weight(values: Mapping[str, Any]) -> float:
    """The weight of the feature loss: what fields of `ChainConfig` say, or the task's own.

    Args:
        values (`Mapping`): field names to values; those that are not there have their default.
    """
    given = values.get("feature_loss_weight")
    weight: float = _said_by(values.get("task", "contrastive")).FEATURE_LOSS_WEIGHT if given is None else given
    return weight


def used_fields(name: Any) -> tuple[str, ...]:
    """Fields of `TrainingArguments` that a task follows and most do not: its `USED`, where it has that."""
    used: tuple[str, ...] = getattr(_said_by(name), "USED", ()) if name in TASKS else ()
    return used


def find_paradigm(name: str, family: str = "") -> type[Paradigm]:
    """What a recipe knows of a task in `TASKS`; starts no torch.

    Args:
        name (`str`): the task.
        family (`str`): the architecture, which may have a paradigm of its own.

    Raises:
        HfChainError: for a task that trainers alone know.
    """
    known = TASKS[name]
    if not isinstance(known, str):
        raise HfChainError(f"task {name} has no paradigm, so recipes cannot name it: use ChainTrainer")
    paradigm: type[Paradigm] = getattr(
        import_module(f"{__name__}.{name}.paradigm"), known.removesuffix("Task") + "Paradigm"
    )
    return paradigm.of(family) if family else paradigm


def check_task_values(name: str, values: Mapping[str, Any]) -> None:
    """Checks values of `ChainConfig` as a task in `TASKS` takes them.

    Args:
        name (`str`): the task.
        values (`Mapping`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    _said_by(name).check_values(values)
