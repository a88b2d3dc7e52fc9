"""Checks of the whole recipe before anything is trained, so that a long run does not end at its last member."""

from __future__ import annotations

import copy
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError
from transformers import CLIPModel
from transformers.integrations import get_available_reporting_integrations

from hf_chain.cost import FamilyCost, human
from hf_chain.errors import HfChainError
from hf_chain.growth.shapes import check_shapes
from hf_chain.hub import check_login
from hf_chain.stages.checkpoints import checkpoints_in
from hf_chain.stages.family_data import FamilyData
from hf_chain.stages.ledger import FamilyRecord
from hf_chain.stages.published import load_clip_config
from hf_chain.stages.recipe import MemberSettings, Recipe
from hf_chain.stages.training_run import CHECKPOINTS_FOLDER

if TYPE_CHECKING:
    from hf_chain.stages.graft.recipe import GraftRecipe

BYTES_PER_PARAMETER = 4 + 2 * 12
"""On disk at a time: the member, and two checkpoints with weights and both moments of AdamW, in float32."""
HEAD_KEEPING = ("exact", "stack", "interpolate")
"""Operators that keep the function of every attention head."""


def check_recipe(recipe: Recipe, cost: FamilyCost) -> None:
    """Checks what can be known from the recipe and the machine alone.

    Raises:
        HfChainError: when a member cannot grow from the one before it, the disk is too full, the run folder cannot be
            written, a kernel is not installed, or nobody is logged in although members are to be pushed.
    """
    check_growth(recipe, cost)
    _check_kernels(recipe, cost)
    for member in recipe.members:
        check_trackers(recipe.training_of(member))
    needed = BYTES_PER_PARAMETER * cost.largest.parameters + 4 * sum(member.parameters for member in cost.members)
    check_disk(recipe.run_dir, needed)
    if recipe.predecessor is not None and not recipe.independent:
        _check_predecessor(recipe, recipe.predecessor, cost)
    if recipe.hub.push:
        check_login(recipe.hub.prefix)


def check_growth(recipe: Recipe, cost: FamilyCost) -> None:
    """Checks that every member can grow from the one before it.

    Raises:
        HfChainError: naming the members and what does not fit.
    """
    if recipe.independent:
        return
    for small, large, member in zip(cost.members, cost.members[1:], recipe.members[1:], strict=False):
        try:
            check_shapes(small.config, large.config, keep_heads=_operator(recipe, member) in HEAD_KEEPING)
        except HfChainError as error:
            raise HfChainError(f"members.{member.name} cannot grow from {small.name}: {error}") from error


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


def check_same_recipe(recipe: Recipe | GraftRecipe, family: FamilyRecord) -> None:
    """Refuses to continue a run that another recipe began.

    Raises:
        HfChainError: naming the first setting that differs and both values.
    """
    old, new = (_flat(_deciding(values)) for values in (_completed(recipe, family), recipe.model_dump(mode="json")))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise HfChainError(
                f"{recipe.run_dir} was begun with {key}={old.get(key)!r}, the recipe now says {new.get(key)!r}: "
                "restore it, choose another name, or remove the folder"
            )


def check_same_processes(run_dir: Path, family: FamilyRecord, processes: int) -> None:
    """Refuses to go on from checkpoints that another number of processes wrote: each keeps states of its own there.

    Args:
        run_dir (`Path`): the run's folder.
        family (`FamilyRecord`): the run so far.
        processes (`int`): processes of this launch.

    Raises:
        HfChainError: naming both numbers.
    """
    folder, before = run_dir / CHECKPOINTS_FOLDER, family.environment.get("processes", processes)
    if before != processes and any(checkpoints_in(stage) for stage in folder.glob("*")):
        raise HfChainError(
            f"{folder} was begun with {before} {'process' if before == 1 else 'processes'}, and this launch has "
            f"{processes}: launch {before}, or remove that folder to train the stage anew"
        )


def check_trackers(training: dict[str, Any]) -> None:
    """Checks that the experiment trackers of a `training` section are installed.

    Raises:
        HfChainError: naming the first that is not.
    """
    wanted = training.get("report_to") or []
    installed = get_available_reporting_integrations()
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in ("all", "none", *installed):
            raise HfChainError(
                f"training.report_to has {name!r}, which is not installed or unknown: install it or use one of "
                f"{', '.join(['none', *installed])}"
            )


def check_disk(run_dir: Path, needed: int) -> None:
    """Checks that a run folder can be written and has room for `needed` bytes; leaves no trace.

    Raises:
        HfChainError: naming the folder.
    """
    existing = next(parent for parent in (run_dir, *run_dir.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise HfChainError(
            f"{run_dir} cannot be written ({error.strerror}: {existing}): choose another output_dir"
        ) from error
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise HfChainError(
            f"{run_dir} needs about {human(needed)}B and the disk has {human(free)}B free: free some or choose "
            "another output_dir"
        )


def _operator(recipe: Recipe, member: MemberSettings) -> str:
    return member.operator or recipe.operator


def _check_predecessor(recipe: Recipe, name: str, cost: FamilyCost) -> None:
    """Checks all of the predecessor but its vocabulary, which is compared with the tokenizer's once that is there."""
    if recipe.tokenizer.name_or_path is None:
        raise HfChainError(f"predecessor {name} has a vocabulary of its own: set tokenizer.name_or_path to {name} too")
    member, old, new = recipe.members[0], load_clip_config(name), copy.deepcopy(cost.members[0].config)
    for field in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(new.text_config, field, getattr(old.text_config, field))
    try:
        check_shapes(old, new, keep_heads=_operator(recipe, member) in HEAD_KEEPING)
    except HfChainError as error:
        raise HfChainError(f"members.{member.name} cannot grow from predecessor {name}: {error}") from error


def _check_kernels(recipe: Recipe, cost: FamilyCost) -> None:
    """Builds the first member without memory, as transformers knows only then which kernels there are."""
    with torch.device("meta"):
        try:
            CLIPModel(cost.members[0].config)
        except (ValueError, ImportError) as error:
            reason = " ".join(str(error).split())[:200]
            kernel = recipe.model.attn_implementation
            raise HfChainError(
                f"model.attn_implementation is {kernel!r}, which does not work here: {reason}"
            ) from error


def _completed(recipe: Recipe | GraftRecipe, family: FamilyRecord) -> dict[str, Any]:
    """The recipe of a run with the defaults of settings that hf_chain did not have when it began."""
    try:
        return type(recipe).model_validate(family.recipe).model_dump(mode="json")
    except ValidationError:
        return family.recipe


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
