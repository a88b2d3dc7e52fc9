"""The data of a run: splits that were checked, the processor, and the training set every member sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset
from transformers import AutoProcessor, CLIPProcessor

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
from hf_chain.errors import HfChainError
from hf_chain.files import whole_folder
from hf_chain.stages.ledger import LEDGER_NAME
from hf_chain.stages.published import load_clip_config
from hf_chain.stages.recipe import Recipe

PROCESSOR_FOLDER = "processor"
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
    """

    train: ImageTextDataset | ImageTextStream
    evaluation: dict[str, Dataset]
    processor: CLIPProcessor
    samples_per_epoch: int
    evaluation_options: dict[str, Any]

    @property
    def collator(self) -> ImageTextCollator:
        """Makes batches with the processor's own image processor and tokenizer."""
        return ImageTextCollator(self.processor)


def load_family_data(recipe: Recipe, run_dir: Path, main_process: bool) -> FamilyData:
    """Loads and checks the data of a recipe; the main process leaves reports of bad rows in `run_dir/data`.

    Raises:
        HfChainError: when a split or column is missing, or too many rows are bad.
    """
    settings = recipe.data
    splits = load_splits(settings, seed=recipe.seed)
    reports = run_dir / "data" if main_process else None
    for name, split in splits.items():
        if settings.streaming and name == "train":
            continue
        rows = _whole(split, recipe)
        report_file = reports / f"{name}-bad-rows.json" if reports else None
        good = check_quality(rows, settings, name=name, report_file=report_file)
        splits[name] = rows if len(good) == len(rows) else rows.select(good)
    train: ImageTextDataset | ImageTextStream
    if settings.streaming:
        report_file = reports / "train-bad-rows.jsonl" if reports else None
        train = ImageTextStream(splits["train"], settings, seed=recipe.seed, report_file=report_file)
    else:
        train = ImageTextDataset(splits["train"], settings, seed=recipe.seed)
    samples = settings.samples_per_epoch if settings.streaming else len(train)  # type: ignore[arg-type]
    if samples is None:
        raise HfChainError("data.samples_per_epoch is not set: a stream needs it to know how long an epoch is")
    evaluation = {name: _whole(split, recipe) for name, split in splits.items() if name in evaluated_splits(recipe)}
    return FamilyData(
        train=train,
        evaluation=evaluation,
        processor=_processor(recipe, train, run_dir, main_process),
        samples_per_epoch=samples,
        evaluation_options=evaluation_options(recipe, evaluation),
    )


def evaluation_data(recipe: Recipe) -> dict[str, Dataset]:
    """The splits every member is evaluated on, as they are loaded.

    Raises:
        HfChainError: when a split cannot be loaded.
    """
    wanted = evaluated_splits(recipe)
    return {name: _whole(rows, recipe) for name, rows in load_splits(recipe.data).items() if name in wanted}


def _whole(rows: Dataset | IterableDataset, recipe: Recipe) -> Dataset:
    if isinstance(rows, Dataset):
        return rows
    return rows_in_memory(rows, recipe.data, recipe.evaluation.max_samples)


def evaluated_splits(recipe: Recipe) -> list[str]:
    """Names of the splits every member is evaluated on."""
    return list(dict.fromkeys([*recipe.evaluation.splits, *recipe.data.test_splits]))


def _processor(recipe: Recipe, train: Any, run_dir: Path, main_process: bool) -> CLIPProcessor:
    """The processor of the run: stored, published, or with a tokenizer trained on the captions.

    One that is stored without a ledger belongs to an attempt that failed before it began, perhaps with other settings.
    """
    stored = run_dir / PROCESSOR_FOLDER
    if stored.is_dir() and (run_dir / LEDGER_NAME).exists():
        return AutoProcessor.from_pretrained(stored)
    if recipe.tokenizer.name_or_path is not None:
        tokenizer = load_tokenizer(recipe.tokenizer.name_or_path)
        if recipe.predecessor is not None and not recipe.independent:
            _check_vocabulary(recipe.predecessor, recipe.tokenizer.name_or_path, len(tokenizer))
    else:
        tokenizer = train_tokenizer(train.all_captions(TOKENIZER_SAMPLES), recipe.tokenizer.vocab_size)
    tokenizer.model_max_length = recipe.model.max_text_tokens
    processor = build_processor(tokenizer, recipe.model.image_size)
    if main_process:
        with whole_folder(stored) as folder:
            processor.save_pretrained(folder)
    return processor


def _check_vocabulary(predecessor: str, tokenizer: str, size: int) -> None:
    known = load_clip_config(predecessor).text_config.vocab_size
    if size != known:
        raise HfChainError(
            f"tokenizer.name_or_path is {tokenizer}, which has {size} tokens, but predecessor {predecessor} knows "
            f"{known}: give the predecessor's own tokenizer"
        )


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
    }
