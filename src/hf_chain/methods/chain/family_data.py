"""The data of a family, and the processor that is stored beside its members."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers.utils import logging

from hf_chain.data.files import files_looked_at_once
from hf_chain.data.fingerprint import Fingerprint
from hf_chain.errors import HfChainError
from hf_chain.files import first_difference, whole_folder
from hf_chain.methods.chain.chain_recipe import ChainRecipe
from hf_chain.runs.environment import wait_for_everyone
from hf_chain.runs.ledger import LEDGER_NAME, FamilyRecord
from hf_chain.runs.resume import check_same_data, fingerprint_models

logger = logging.get_logger(__name__)


@dataclass
class FamilyData:
    """Everything members are trained and evaluated on.

    Args:
        train (`Dataset` or `IterableDataset`): the training data of the task.
        evaluation (`dict[str, Dataset]`): split name to rows.
        processor: saved with every member: tokenizer, image processor or both.
        collator: makes batches of `train`.
        samples_per_epoch (`int`): training samples an epoch.
        evaluation_options (`dict`): what the task's evaluation needs, such as columns and names of classes.
        fingerprints (`dict[str, dict]`): split name to what it holds, bad rows included; for the main process alone.
    """

    train: Any
    evaluation: dict[str, Any]
    processor: Any
    collator: Any
    samples_per_epoch: int
    evaluation_options: dict[str, Any] = field(default_factory=dict)
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)


def load_family_data(recipe: ChainRecipe, main_process: bool, begun: FamilyRecord | None = None) -> FamilyData:
    """Loads and checks the data of a recipe; the main process leaves the processor and reports of bad rows in the run.

    Args:
        recipe (`ChainRecipe`): the recipe.
        main_process (`bool`): whether this process writes.
        begun (`FamilyRecord`, *optional*): the run so far, whose data these have to be.

    Raises:
        HfChainError: when a split or column is missing, too many rows are bad, or the run was begun with other data.
    """
    paradigm, data = recipe.paradigm, recipe.data
    splits = paradigm.splits()
    loaded = dict(splits)
    with files_looked_at_once():
        for name, rows in splits.items():
            if not (data.streaming and name == "train"):
                splits[name] = _usable(rows, recipe, name, main_process)
        found = _found(recipe, loaded, begun) if main_process else {}
    if main_process:
        store_processor(recipe, splits["train"])
    wait_for_everyone()
    processor = load_processor(recipe)
    train = paradigm.train_set(splits["train"], processor, _reports(recipe) / "train-bad-rows.jsonl")
    samples = data.samples_per_epoch if data.streaming else len(train)
    if samples is None:
        raise HfChainError("data.samples_per_epoch is not set: a stream needs it to know how long an epoch is")
    evaluation = {
        name: rows if isinstance(rows, Dataset) else _usable(rows, recipe, name, main_process)
        for name, rows in splits.items()
        if name in recipe.evaluated_splits
    }
    if main_process:
        paradigm.look_at(train, processor)
    return FamilyData(
        train=train,
        evaluation=evaluation,
        processor=processor,
        collator=paradigm.collator(processor),
        samples_per_epoch=samples,
        evaluation_options=paradigm.evaluation_options(evaluation),
        fingerprints=found,
    )


def _reports(recipe: ChainRecipe) -> Path:
    return recipe.run_dir / "data"


def _usable(rows: Any, recipe: ChainRecipe, name: str, main_process: bool) -> Any:
    """The rows of a split that can be used: the main process looks, and leaves a report that the others read."""
    paradigm, report_file = recipe.paradigm, _reports(recipe) / f"{name}-bad-rows.json"
    usable = None
    if main_process:
        report_file.unlink(missing_ok=True)
        usable = paradigm.usable(rows, name, report_file)
    wait_for_everyone()
    return paradigm.usable_again(rows, report_file) if usable is None else usable


def _found(recipe: ChainRecipe, splits: dict[str, Any], begun: FamilyRecord | None) -> dict[str, Fingerprint]:
    found = fingerprints(recipe, splits) | fingerprint_models({"predecessor": recipe.published})
    if begun is not None:
        check_same_data(begun, found)
    return found


def fingerprints(recipe: ChainRecipe, splits: dict[str, Any] | None = None) -> dict[str, Fingerprint]:
    """Split name to what it holds, of the splits that the run trains and evaluates on.

    Args:
        recipe (`ChainRecipe`): the recipe.
        splits (`dict`, *optional*): its splits, where they are loaded already.

    Raises:
        HfChainError: when a split cannot be read.
    """
    paradigm, data, used = recipe.paradigm, recipe.data, ["train", *recipe.evaluated_splits]
    names = {"train": data.train_split, "validation": data.validation_split or ""}
    splits = paradigm.splits() if splits is None else splits
    return {
        name: dict(paradigm.fingerprint(rows, names.get(name, name))) for name, rows in splits.items() if name in used
    }


def evaluation_data(recipe: ChainRecipe) -> dict[str, Any]:
    """The splits every member is evaluated on, without bad rows.

    Raises:
        HfChainError: when a split cannot be loaded, or too many rows are bad.
    """
    splits = recipe.paradigm.splits(only=recipe.evaluated_splits)
    return {name: recipe.paradigm.usable(rows, name) for name, rows in splits.items()}


PROCESSOR_FOLDER = "processor"
CALLED_WITH = (
    "is_local",
    "local_files_only",
    "max_length",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "stride",
    "truncation_strategy",
)
"""How a tokenizer was loaded and called last, which transformers saves with it; so it does its sides."""


def load_processor(recipe: ChainRecipe) -> Any:
    """The processor that `store_processor` has left in the folder of the run."""
    return _loaded(recipe, recipe.run_dir / PROCESSOR_FOLDER)


def store_processor(recipe: ChainRecipe, rows: Any = None) -> None:
    """Leaves a whole processor in the folder of the run: the stored one, a member's, or a new one.

    One that is stored without a ledger belongs to an attempt that failed before it began, perhaps with other settings.

    Args:
        recipe (`ChainRecipe`): the recipe.
        rows: the training split, which a tokenizer is trained on where the recipe names none.

    Raises:
        HfChainError: when the tokenizer cannot be loaded or trained.
    """
    stored = recipe.run_dir / PROCESSOR_FOLDER
    processor = None
    if (recipe.run_dir / LEDGER_NAME).exists():
        if (difference := first_difference(stored)) is None:
            return
        logger.warning(f"{stored} is damaged ({difference}): it is made again")
        processor = _of_a_member(recipe)
    with whole_folder(stored) as folder:
        (processor or recipe.paradigm.new_processor(rows)).save_pretrained(folder)


def _of_a_member(recipe: ChainRecipe) -> Any:
    folders: Iterable[Path] = (recipe.run_dir / recipe.folder_name(index) for index in range(len(recipe.members)))
    found = next((folder for folder in folders if folder.is_dir() and first_difference(folder) is None), None)
    return _loaded(recipe, found) if found else None


def _loaded(recipe: ChainRecipe, folder: Path) -> Any:
    processor = recipe.paradigm.load_processor(folder)
    tokenizer = getattr(processor, "tokenizer", processor)
    stored = getattr(tokenizer, "init_kwargs", {})
    for name in CALLED_WITH:
        stored.pop(name, None)
    for side in ("padding_side", "truncation_side"):
        if stored.get(side) == "right":
            del stored[side]
    return processor
