"""Scan for rows that cannot be used: broken images, empty captions, labels that are no class."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm
from transformers.utils import logging

from hf_chain.data.captions import CaptionReader
from hf_chain.data.columns import check_columns, undecoded
from hf_chain.data.image_files import image_files_key
from hf_chain.data.images import decode_image, image_path
from hf_chain.data.quality_report import BadRow, QualityReport
from hf_chain.data.settings import DataSettings
from hf_chain.errors import HfChainError

logger = logging.get_logger(__name__)

_SCAN_BATCH = 256


def read_row(number: int, row: Mapping[str, Any], reader: CaptionReader) -> tuple[Image.Image | None, BadRow | None]:
    """Decode one row and look for problems.

    Args:
        number (`int`): Row number; in a stream, how many came before.
        row (`Mapping`): The row, with its image not decoded.
        reader (`CaptionReader`): Finds captions and label.

    Returns:
        `tuple[PIL.Image.Image | None, BadRow | None]`: The image, where the row can be used, and the problem, where
        there is one.
    """
    value = row[reader.settings.image_column]
    path = image_path(value)
    try:
        image = decode_image(value)
    except Exception as error:  # Pillow's decoders raise errors of every kind.
        return None, BadRow(number, path, f"image cannot be read, {_one_line(error)}", usable=False)
    try:
        reader.label(row)
    except ValueError as error:
        return None, BadRow(number, path, str(error), usable=False)
    captions, problems = reader.captions(row)
    bad = BadRow(number, path, ", ".join(problems), usable=bool(captions)) if problems else None
    return image if captions else None, bad


def check_quality(
    dataset: Dataset,
    settings: DataSettings,
    *,
    name: str = "the data",
    report_file: str | Path | None = None,
) -> list[int]:
    """Decode every row once, before training, and return those that can be used.

    The result is remembered in the `datasets` cache by the fingerprint of the data, and by size and time of change of
    image files, so that no data set is scanned twice.

    Args:
        dataset (`datasets.Dataset`): One split.
        settings (`DataSettings`): Columns, and the share of bad rows allowed.
        name (`str`, *optional*): Name of the split in messages.
        report_file (`str` or `pathlib.Path`, *optional*): Where to write the list of bad rows, if there are any.

    Returns:
        `list[int]`: Row numbers.

    Raises:
        `HfChainError`: Where more than `max_bad_share` of the rows are bad, or a column is missing.
    """
    check_columns(dataset, settings)
    remembered = _remembered_report(dataset, settings)
    known = remembered.exists()
    report = QualityReport.read(remembered) if known else _scan(dataset, settings, name)
    if report.bad and report_file is not None:
        report.write(report_file)
    report.check(name, settings.max_bad_share, report_file)
    # A scan that stops the run is not remembered: what it complains about is to be mended.
    if not known:
        try:
            report.write(remembered)
        except HfChainError as error:
            logger.warning(f"the next run checks {name} again: {error}")
    return report.good_indices


def _scan(dataset: Dataset, settings: DataSettings, name: str) -> QualityReport:
    rows = undecoded(dataset, settings)
    reader = CaptionReader(settings, dataset.features)
    report = QualityReport()
    with ThreadPoolExecutor() as threads, tqdm(total=len(rows), desc=f"Checking {name}", unit="row") as bar:
        for start in range(0, len(rows), _SCAN_BATCH):
            numbers = range(start, min(start + _SCAN_BATCH, len(rows)))
            batch = [rows[number] for number in numbers]
            found = threads.map(lambda number, row: read_row(number, row, reader)[1], numbers, batch)
            report.bad += [bad for bad in found if bad is not None]
            report.rows += len(batch)
            bar.update(len(batch))
    return report


def _remembered_report(dataset: Dataset, settings: DataSettings) -> Path:
    columns = [
        settings.image_column,
        settings.caption_column,
        settings.label_column,
        settings.class_names_column,
        settings.class_names,
    ]
    files = image_files_key(dataset, settings.image_column)
    key = hashlib.blake2b(json.dumps([dataset._fingerprint, columns, files]).encode(), digest_size=16).hexdigest()
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_chain" / "quality" / f"{key}.json"


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
