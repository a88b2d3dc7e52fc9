"""The data of a family, and the processor that is stored beside its members."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset
from transformers import AutoProcessor, CLIPProcessor
from transformers.utils import logging

from hf_chain.data import (
    ImageTextCollator,
    ImageTextDataset,
    ImageTextStream,
    build_processor,
    check_quality,
    class_names,
    load_splits,
    load_tokenizer,
    resolve_templates,
    rows_in_memory,
    train_tokenizer,
)
from hf_chain.data.files import files_looked_at_once
from hf_chain.data.fingerprint import Fingerprint, fingerprint_pairs
from hf_chain.data.quality import QualityReport
from hf_chain.data.tokenizer import check_readings
from hf_chain.errors import HfChainError
from hf_chain.evaluation import evaluation_size
from hf_chain.evaluation.embed import warn_if_alike
from hf_chain.files import first_difference, whole_folder
from hf_chain.methods.chain.planning import DataSize
from hf_chain.methods.chain.published import load_clip_config
from hf_chain.methods.chain.recipe import Recipe
from hf_chain.runs.environment import wait_for_everyone
from hf_chain.runs.ledger import LEDGER_NAME, FamilyRecord
from hf_chain.runs.resume import check_same_data, fingerprint_models

logger = logging.get_logger(__name__)

CAPTIONS_LOOKED_AT = 1_000
"""Rows whose captions are compared with each other."""
TOKENIZER_SAMPLES = 100_000
"""Rows whose captions a tokenizer is trained on."""


@dataclass
class FamilyData:
    """Everything members are trained and evaluated on.

    Args:
        train (`ImageTextDataset` or `ImageTextStream`): the training pairs.
        evaluation (`dict[str, Dataset]`): split name to rows.
        processor (`CLIPProcessor`): saved with every member.
        samples_per_epoch (`int`): training images an epoch.
        evaluation_options (`dict`): columns, class names and prompts for `evaluate_clip`.
        fingerprints (`dict[str, dict]`): split name to what it holds, bad rows included; for the main process alone.
    """

    train: ImageTextDataset | ImageTextStream
    evaluation: dict[str, Dataset]
    processor: CLIPProcessor
    samples_per_epoch: int
    evaluation_options: dict[str, Any]
    fingerprints: dict[str, Fingerprint]

    @property
    def collator(self) -> ImageTextCollator:
        """Makes batches with the processor's own image processor and tokenizer."""
        return ImageTextCollator(self.processor)


def load_family_data(recipe: Recipe, main_process: bool, begun: FamilyRecord | None = None) -> FamilyData:
    """Loads and checks the data of a recipe; the main process leaves the processor and reports of bad rows in the run.

    Args:
        recipe (`Recipe`): the recipe.
        main_process (`bool`): whether this process writes.
        begun (`FamilyRecord`, *optional*): the run so far, whose data these have to be.

    Raises:
        HfChainError: when a split or column is missing, too many rows are bad, or the run was begun with other data.
    """
    settings = recipe.data
    splits = load_splits(settings, seed=recipe.seed)
    loaded = dict(splits)
    with files_looked_at_once():
        for name, split in splits.items():
            if not (settings.streaming and name == "train"):
                splits[name] = _usable(split, recipe, name, main_process)
        found = _found(recipe, loaded, begun) if main_process else {}
    # Each process reports the bad rows that it meets.
    kind = ImageTextStream if settings.streaming else ImageTextDataset
    report_file = recipe.run_dir / "data" / "train-bad-rows.jsonl"
    train: Any = kind(splits["train"], settings, seed=recipe.seed, report_file=report_file)
    samples = settings.samples_per_epoch if settings.streaming else len(train)
    if samples is None:
        raise HfChainError("data.samples_per_epoch is not set: a stream needs it to know how long an epoch is")
    evaluation = {
        name: split if isinstance(split, Dataset) else _usable(split, recipe, name, main_process)
        for name, split in splits.items()
        if name in evaluated_splits(recipe)
    }
    if main_process:
        store_processor(recipe, train.all_captions(TOKENIZER_SAMPLES))
        captions = list(train.all_captions(CAPTIONS_LOOKED_AT))
        warn_if_alike("the training data", captions)
        check_readings(captions, load_processor(recipe).tokenizer)
    wait_for_everyone()
    return FamilyData(
        train=train,
        evaluation=evaluation,
        processor=load_processor(recipe),
        samples_per_epoch=samples,
        evaluation_options=evaluation_options(recipe, evaluation),
        fingerprints=found,
    )


def data_size(recipe: Recipe, data: FamilyData) -> DataSize:
    """What the data of a run are to its cost: everything that members see is counted, captions of caches only there.

    Args:
        recipe (`Recipe`): the recipe.
        data (`FamilyData`): its data.

    Raises:
        HfChainError: when a row that is evaluated has no caption.
    """
    sizes = [evaluation_size(split, **data.evaluation_options) for split in data.evaluation.values()]
    return DataSize(
        samples_per_epoch=data.samples_per_epoch,
        vocab_size=len(data.processor.tokenizer),
        evaluated_images=sum(images for images, _ in sizes),
        evaluated_texts=sum(texts for _, texts in sizes),
        distinct_captions=len(set(data.train.all_captions())) if recipe.cache_teacher_features else None,
    )


def _found(
    recipe: Recipe, splits: dict[str, Dataset | IterableDataset], begun: FamilyRecord | None
) -> dict[str, Fingerprint]:
    predecessor = None if recipe.independent else recipe.predecessor
    found = fingerprints(recipe, splits) | fingerprint_models({"predecessor": predecessor})
    if begun is not None:
        check_same_data(begun, found)
    return found


def fingerprints(recipe: Recipe, splits: dict[str, Dataset | IterableDataset] | None = None) -> dict[str, Fingerprint]:
    """Split name to what it holds, of the splits that the run trains and evaluates on.

    Args:
        recipe (`Recipe`): the recipe.
        splits (`dict`, *optional*): its splits, where they are loaded already.

    Raises:
        HfChainError: when a split cannot be read.
    """
    settings, used = recipe.data, ["train", *evaluated_splits(recipe)]
    names = {"train": settings.train_split, "validation": settings.validation_split or ""}
    splits = load_splits(settings, recipe.seed) if splits is None else splits
    return {
        name: fingerprint_pairs(rows, settings, names.get(name, name)) for name, rows in splits.items() if name in used
    }


def evaluation_data(recipe: Recipe) -> dict[str, Dataset]:
    """The splits every member is evaluated on, without bad rows.

    Raises:
        HfChainError: when a split cannot be loaded, or too many rows are bad.
    """
    splits = load_splits(recipe.data, recipe.seed, only=evaluated_splits(recipe))
    return {name: _usable(rows, recipe, name) for name, rows in splits.items()}


def _usable(rows: Dataset | IterableDataset, recipe: Recipe, name: str, main_process: bool | None = None) -> Dataset:
    """The rows of a split that can be used; of a stream those that are evaluated.

    The main process of a run looks, and leaves a report that the others read; outside of runs nobody waits.
    """
    if not isinstance(rows, Dataset):
        rows = rows_in_memory(rows, recipe.data, recipe.evaluation.max_samples)
    # Evaluations replace no rows.
    settings = recipe.data if name == "train" else recipe.data.model_copy(update={"check": "all"})
    if main_process is None:
        return _selected(rows, check_quality(rows, settings, name=name))
    report_file = recipe.run_dir / "data" / f"{name}-bad-rows.json"
    if main_process:
        report_file.unlink(missing_ok=True)
        check_quality(rows, settings, name=name, report_file=report_file)
    wait_for_everyone()
    if not report_file.exists():
        return rows
    return _selected(rows, QualityReport.read(report_file).good_indices)


def _selected(rows: Dataset, numbers: Any) -> Dataset:
    return rows if len(numbers) == len(rows) else rows.select(numbers)


def evaluated_splits(recipe: Recipe) -> list[str]:
    """Names of the splits every member is evaluated on."""
    return list(dict.fromkeys([*recipe.evaluation.splits, *recipe.data.test_splits]))


def evaluation_options(recipe: Recipe, evaluation: dict[str, Dataset]) -> dict[str, Any]:
    """Columns, class names and prompts of a recipe, as `evaluate_clip` takes them."""
    settings, wanted = recipe.data, recipe.evaluation
    named = settings.label_column is not None and wanted.zero_shot is not False
    captioned = settings.caption_column is not None and wanted.retrieval is not False
    names = class_names(next(iter(evaluation.values())), settings) if named and evaluation else None
    return {
        "image_column": settings.image_column,
        "caption_column": settings.caption_column if captioned else None,
        "label_column": settings.label_column if named else None,
        "class_names": names,
        "prompt_templates": wanted.prompt_templates or resolve_templates(settings.prompt_templates),
        "batch_size": wanted.batch_size,
        "max_samples": wanted.max_samples,
        "max_image_pixels": settings.max_image_pixels,
    }


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


def load_processor(recipe: Recipe) -> CLIPProcessor:
    """The processor that `store_processor` has left in the folder of the run."""
    return _loaded(recipe.run_dir / PROCESSOR_FOLDER)


def store_processor(recipe: Recipe, captions: Iterable[str] = ()) -> None:
    """Leaves a whole processor in the folder of the run: the stored one, a member's, or a new one.

    One that is stored without a ledger belongs to an attempt that failed before it began, perhaps with other settings.

    Args:
        recipe (`Recipe`): the recipe.
        captions (`Iterable[str]`): what a tokenizer is trained on where the recipe names none.

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
        (processor or _new(recipe, captions)).save_pretrained(folder)


def _of_a_member(recipe: Recipe) -> CLIPProcessor | None:
    folders = (recipe.run_dir / recipe.folder_name(index) for index in range(len(recipe.members)))
    found = next((folder for folder in folders if folder.is_dir() and first_difference(folder) is None), None)
    return _loaded(found) if found else None


def _loaded(folder: Path) -> CLIPProcessor:
    processor = AutoProcessor.from_pretrained(folder)
    stored = processor.tokenizer.init_kwargs
    for name in CALLED_WITH:
        stored.pop(name, None)
    for side in ("padding_side", "truncation_side"):
        if stored.get(side) == "right":
            del stored[side]
    return processor


def _new(recipe: Recipe, captions: Iterable[str]) -> CLIPProcessor:
    if recipe.tokenizer.name_or_path is not None:
        tokenizer = load_tokenizer(recipe.tokenizer.name_or_path, recipe.model.max_text_tokens)
        if recipe.predecessor is not None and not recipe.independent:
            _check_vocabulary(recipe.predecessor, recipe.tokenizer.name_or_path, len(tokenizer))
    else:
        tokenizer = train_tokenizer(captions, recipe.tokenizer.vocab_size)
    tokenizer.model_max_length = recipe.model.max_text_tokens
    return build_processor(tokenizer, recipe.model.image_size)


def _check_vocabulary(predecessor: str, tokenizer: str, size: int) -> None:
    known = load_clip_config(predecessor).text_config.vocab_size
    if size != known:
        raise HfChainError(
            f"tokenizer.name_or_path is {tokenizer}, which has {size} tokens, but predecessor {predecessor} knows "
            f"{known}: give the predecessor's own tokenizer"
        )
