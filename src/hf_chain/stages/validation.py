"""Checks of the whole recipe before anything is trained, so that a long run does not end at its last member."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hf_chain.cost import FamilyCost, human
from hf_chain.errors import HfChainError
from hf_chain.growth.shapes import check_shapes
from hf_chain.hub import check_login
from hf_chain.stages.family_data import FamilyData
from hf_chain.stages.ledger import FamilyRecord
from hf_chain.stages.recipe import Recipe

BYTES_PER_PARAMETER = 4 + 2 * 12
"""On disk at a time: the member, and two checkpoints with weights and both moments of AdamW, in float32."""
HEAD_KEEPING = ("exact", "stack", "interpolate")
"""Operators that keep the function of every attention head."""


def check_recipe(recipe: Recipe, cost: FamilyCost) -> None:
    """Checks what can be known from the recipe and the machine alone.

    Raises:
        HfChainError: when a member cannot grow from the one before it, the disk is too full, the run folder cannot be
            written, or nobody is logged in although members are to be pushed.
    """
    if not recipe.independent:
        for small, large, member in zip(cost.members, cost.members[1:], recipe.members[1:], strict=False):
            try:
                operator = member.operator or recipe.operator
                check_shapes(small.config, large.config, keep_heads=operator in HEAD_KEEPING)
            except HfChainError as error:
                raise HfChainError(f"members.{member.name} cannot grow from {small.name}: {error}") from error
    _check_disk(recipe.run_dir, cost)
    if recipe.hub.push:
        check_login(recipe.hub.prefix)


def check_batches(recipe: Recipe, data: FamilyData, processes: int) -> None:
    """Checks that an epoch has at least one global batch for every member.

    Raises:
        HfChainError: naming the member, the batch and the number of images.
    """
    for member in recipe.members:
        batch = recipe.training_of(member).get("per_device_train_batch_size", 8) * processes
        if batch > data.samples_per_epoch:
            raise HfChainError(
                f"members.{member.name}: a global batch has {batch} images but the training split only "
                f"{data.samples_per_epoch}: lower training.per_device_train_batch_size"
            )


def check_same_recipe(recipe: Recipe, family: FamilyRecord) -> None:
    """Refuses to continue a run that another recipe began.

    Raises:
        HfChainError: naming the first setting that differs and both values.
    """
    old, new = _flat(_deciding(family.recipe)), _flat(_deciding(recipe.model_dump(mode="json")))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise HfChainError(
                f"{recipe.run_dir} was begun with {key}={old.get(key)!r}, the recipe now says {new.get(key)!r}: "
                "restore it, choose another name, or remove the folder"
            )


def _check_disk(run_dir: Path, cost: FamilyCost) -> None:
    existing = next(parent for parent in [run_dir, *run_dir.absolute().parents] if parent.exists())
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        probe = run_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise HfChainError(f"{run_dir} cannot be written ({error.strerror}): choose another output_dir") from error
    needed = BYTES_PER_PARAMETER * cost.largest.parameters + 4 * sum(member.parameters for member in cost.members)
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise HfChainError(
            f"{run_dir} needs about {human(needed)}B and the disk has {human(free)}B free: free some or choose another "
            "output_dir"
        )


def _deciding(recipe: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what comes out; where it goes and what is evaluated may change."""
    return {key: value for key, value in recipe.items() if key not in ("hub", "evaluation", "output_dir", "name")}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in items:
        flat |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
