"""Whether a run goes on as it began: with the same recipe, processes, data, models and libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError
from transformers.utils import logging

from hf_chain.arguments.precision import AUTO
from hf_chain.data.fingerprint import Fingerprint, difference
from hf_chain.errors import HfChainError
from hf_chain.files import MANIFEST_NAME, model_sha256
from hf_chain.runs.environment import describe_environment
from hf_chain.runs.ledger import LEDGER_NAME, FamilyRecord, Ledger, read_family
from hf_chain.runs.training_run import CHECKPOINTS_FOLDER, checkpoints_in

logger = logging.get_logger(__name__)


class RunRecipe(Protocol):
    """What the recipes of all methods have."""

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""

    def model_dump(self, *, mode: str = ..., exclude_defaults: bool = ...) -> dict[str, Any]:
        """Its values, as pydantic gives them."""

    @classmethod
    def model_validate(cls, values: Any) -> Any:
        """The recipe that values describe."""


def read_begun(recipe: RunRecipe) -> FamilyRecord:
    """What the ledger knows of the run of a recipe, which is nothing where the run is new.

    Raises:
        HfChainError: when the run was begun with another recipe, or its ledger is gone.
    """
    run_dir = recipe.run_dir
    family = read_family(run_dir) if Ledger(run_dir).path.exists() else FamilyRecord(run_dir)
    if family.recipe:
        check_same_recipe(recipe, family)
        return family
    # A power cut or a full disk may have left an empty one.
    for manifest in sorted(run_dir.glob(f"[0-9][0-9]-*/{MANIFEST_NAME}")):
        raise HfChainError(
            f"{run_dir} holds {manifest.parent.name} and no {LEDGER_NAME} that says how it was made: restore that, "
            "choose another name, or remove the folder"
        )
    return family


def check_same_recipe(recipe: RunRecipe, family: FamilyRecord) -> None:
    """Refuses to continue a run that another recipe began.

    Only `bf16` may become `auto` on the way, as a training that is slow without instructions for it advises.

    Raises:
        HfChainError: naming the first setting that differs and both values.
    """
    old, new = (_flat(_deciding(values)) for values in (_completed(recipe, family), recipe.model_dump(mode="json")))
    for key in sorted(old.keys() | new.keys()):
        advised = key.rpartition(".")[2] == "bf16" and new.get(key) == AUTO
        if old.get(key) != new.get(key) and not advised:
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


def _completed(recipe: RunRecipe, family: FamilyRecord) -> dict[str, Any]:
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


WATCHED = ("hf-chain", "torch", "transformers")
"""Libraries of which another version may come to other weights."""


def fingerprint_models(models: Mapping[str, str | None]) -> dict[str, Fingerprint]:
    """What a run is given beside its data; for `check_same_data`.

    Args:
        models (`Mapping[str, str]`): such as `encoder` to folder or Hub name. Of the Hub commits are noted elsewhere.
    """
    folders = {role: Path(name) for role, name in models.items() if name is not None}
    return {
        role: {"folder": str(folder), "sha256": model_sha256(folder)}
        for role, folder in folders.items()
        if folder.is_dir()
    }


def check_same_data(family: FamilyRecord, found: Mapping[str, Fingerprint]) -> None:
    """Refuses to continue a run that other data or models began. Splits that it did not use before may be added.

    Args:
        family (`FamilyRecord`): the run so far.
        found (`Mapping[str, dict]`): split or model to what it holds now.

    Raises:
        HfChainError: naming it and what differs.
    """
    for split, now in found.items():
        if "sha256" in now:
            if family.data.get(split, now)["sha256"] != now["sha256"]:
                raise HfChainError(
                    f"{family.run_dir} was begun with another {split}: files in {now['folder']} have changed; restore "
                    "them, choose another name, or remove the folder"
                )
            continue
        words = difference(family.data[split], now) if split in family.data else None
        if words is not None:
            kind = "training" if split.endswith("train") else "evaluation"
            raise HfChainError(
                f"{family.run_dir} was begun with other {kind} data, {split}: {words}; restore it, choose another "
                "name, or remove the folder"
            )


def check_finished_data(family: FamilyRecord, read: Callable[[], Mapping[str, Fingerprint]]) -> None:
    """`check_same_data` for a run of which nothing is left to do, whose data may be gone.

    Raises:
        HfChainError: naming the split and what differs.
    """
    try:
        found = read()
    except HfChainError as error:
        logger.warning(f"{family.run_dir}: its data are not compared, {error}")
        return
    check_same_data(family, found)


def warn_other_versions(family: FamilyRecord) -> None:
    """Says which libraries are other ones than those that the run went on with last."""
    before, now = family.environment.get("versions") or {}, describe_environment()["versions"]
    changed = [
        f"{name} {now[name]} instead of {before[name]}"
        for name in WATCHED
        if name in before and name in now and before[name] != now[name]
    ]
    if changed:
        logger.warning(f"{family.run_dir} goes on with {', '.join(changed)}: its weights may come out differently")
