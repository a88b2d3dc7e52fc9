"""Scan for rows that cannot be used: broken images, empty captions, labels that are no class."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm.auto import tqdm
from transformers.utils import logging

from hf_chain.data.captions import LabelReader, check_columns, undecoded, with_stored_images
from hf_chain.data.files import image_files_key
from hf_chain.data.readers import reader_of
from hf_chain.data.settings import ImageSettings
from hf_chain.errors import HfChainError, reason
from hf_chain.images import decode_image, image_path

logger = logging.get_logger(__name__)


_EXAMPLES, _SHOWN = 3, 300
_LONGEST = 500
"""Characters of a path or a problem that are kept."""
FIRST_JUDGEMENT = 1_000
"""Rows before which nothing is judged that is not scanned, or one bad row at its start would stop it."""


@dataclass(frozen=True)
class BadRow:
    """One row with a problem; `usable` where enough of it is left to train on."""

    row: int
    path: str | None
    problem: str
    usable: bool

    def __post_init__(self) -> None:
        # A cell may hold an encoded image, or a book, where a path or a label is expected.
        object.__setattr__(self, "path", self.path and self.path[:_LONGEST])
        object.__setattr__(self, "problem", self.problem[:_LONGEST])

    def __str__(self) -> str:
        place = f"row {self.row}" + (f" ({self.path[:_SHOWN]})" if self.path else "")
        return f"{place}: {self.problem[:_SHOWN]}"


@dataclass
class QualityReport:
    """What a scan found."""

    rows: int = 0
    bad: list[BadRow] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of the rows that have a problem."""
        return len(self.bad) / max(1, self.rows)

    @property
    def good_indices(self) -> Sequence[int] | np.ndarray:
        """Numbers of the rows that can be trained on, in order; where all can a `range`, which takes no memory."""
        dropped = [bad.row for bad in self.bad if not bad.usable]
        return np.delete(np.arange(self.rows), dropped) if dropped else range(self.rows)

    def check(self, name: str, max_bad_share: float, report_file: str | Path | None = None) -> None:
        """Log the count, and stop where too many rows are bad.

        Args:
            name (`str`): Name of the split, for the message.
            max_bad_share (`float`): Largest share allowed.
            report_file (`str` or `pathlib.Path`, *optional*): Where the whole list stands.

        Raises:
            `HfChainError`: With the count, the share, the first examples and the remedy.
        """
        if not self.bad:
            return
        examples = "; ".join(str(bad) for bad in self.bad[:_EXAMPLES])
        where = f"; full list in {report_file}" if report_file else ""
        text = f"{len(self.bad)} of {self.rows} rows of {name} are bad ({self.share:.1%}): {examples}"
        if self.share > max_bad_share or self.rows == sum(not bad.usable for bad in self.bad):
            raise HfChainError(f"{text}{where}; repair or remove them, or raise max_bad_share (now {max_bad_share:g})")
        logger.warning(f"{text}{where}")

    def write(self, path: str | Path) -> None:
        """Write the report as JSON, whole or not at all.

        Raises:
            `HfChainError`: Where the file cannot be written.
        """
        path = Path(path)
        content = {"rows": self.rows, "bad": [asdict(bad) for bad in self.bad]}
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
            os.replace(unfinished, path)
        except OSError as error:
            raise HfChainError(f"report {path} cannot be written, {error.strerror}; choose another folder") from error

    @classmethod
    def read(cls, path: str | Path) -> QualityReport:
        """Read what `write` has written."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(content["rows"], [BadRow(**bad) for bad in content["bad"]])


class RunningCount:
    """The count of bad rows of a stream, or of rows that were not scanned, judged while they come.

    Args:
        max_bad_share (`float`): Largest share allowed.
        report_file (`str` or `pathlib.Path`, *optional*): JSON lines file that bad rows are appended to, also by
            several workers.
        name (`str`, *optional*, defaults to `"the stream"`): What has the rows, in messages.
        first (`int`, *optional*, defaults to 1000): Rows before which it is not judged.
    """

    def __init__(
        self,
        max_bad_share: float,
        report_file: str | Path | None = None,
        name: str = "the stream",
        first: int = FIRST_JUDGEMENT,
    ) -> None:
        self.max_bad_share = max_bad_share
        self.report_file = report_file
        self.name, self.first = name, first
        self.report = QualityReport()

    def add(self, bad: BadRow | None) -> None:
        """Count one row; raise `HfChainError` as soon as too many are bad."""
        self.report.rows += 1
        if bad is None:
            return
        self.report.bad.append(bad)
        logger.warning(f"{self.name} has a bad row, {bad}")
        if self.report_file is not None:
            Path(self.report_file).parent.mkdir(parents=True, exist_ok=True)
            with open(self.report_file, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(bad), ensure_ascii=False) + "\n")
        if len(self.report.bad) > self.max_bad_share * max(self.report.rows, self.first):
            self.finish()

    def finish(self) -> None:
        """Judge all rows counted so far."""
        self.report.check(self.name, self.max_bad_share, self.report_file)


_SCAN_BATCH = 256
_SAMPLE = 1_000
_ALONE = 4_096
"""Rows below which workers cost more than they save."""
_RULES = 2
"""What is bad has changed so often; a scan by older rules is not remembered."""


def read_row(number: int, row: Mapping[str, Any], reader: LabelReader) -> tuple[Image.Image | None, BadRow | None]:
    """Decode one row and look for problems.

    Args:
        number (`int`): Row number; in a stream, how many came before.
        row (`Mapping`): The row, with its image not decoded.
        reader (`LabelReader`): Finds the label, and captions.

    Returns:
        `tuple[PIL.Image.Image | None, BadRow | None]`: The image, where the row can be used, and the problem, where
        there is one.
    """
    value = row[reader.settings.image_column]
    path = image_path(value)
    try:
        image = decode_image(value, reader.settings.max_image_pixels)
    except Exception as error:  # Pillow's decoders raise errors of every kind.
        return None, BadRow(number, path, f"image cannot be read, {reason(error)}", usable=False)
    problems, usable = reader.check(row)
    bad = BadRow(number, path, ", ".join(problems), usable) if problems else None
    return image if usable else None, bad


def check_quality(
    dataset: Dataset,
    settings: ImageSettings,
    *,
    name: str = "the data",
    report_file: str | Path | None = None,
) -> Sequence[int] | np.ndarray:
    """Decode every row once, before training, and return those that can be used.

    The result is remembered in the `datasets` cache by the fingerprint of the data, and by size and time of change of
    image files, so that no data set is scanned twice. Large ones are scanned by as many processes as there are cores.

    Args:
        dataset (`datasets.Dataset`): One split.
        settings (`ImageSettings`): Columns, and the share of bad rows allowed. With `check: sample` 1,000 rows are
            judged, with `off` none, and no row is left out.
        name (`str`, *optional*): Name of the split in messages.
        report_file (`str` or `pathlib.Path`, *optional*): Where to write the list of bad rows, if there are any.

    Returns:
        `Sequence[int]` or `numpy.ndarray`: Row numbers; a `range`, which takes no memory, where no row is left out.

    Raises:
        `HfChainError`: Where more than `max_bad_share` of the rows are bad, or a column is missing.
    """
    check_columns(dataset, settings)
    if settings.check != "all":
        if settings.check == "sample":
            # Drawn: every n-th row may be of one kind.
            numbers = sorted(Random(0).sample(range(len(dataset)), min(_SAMPLE, len(dataset))))
            sample = _scan(dataset, settings, name, numbers)
            sample.check(f"a sample of {name}", settings.max_bad_share)
        return range(len(dataset))
    remembered = _remembered_report(dataset, settings)
    known = remembered.exists()
    report = QualityReport.read(remembered) if known else _scan(dataset, settings, name, range(len(dataset)))
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


def _scan(dataset: Dataset, settings: ImageSettings, name: str, numbers: Sequence[int]) -> QualityReport:
    reading = _Reading(undecoded(dataset, settings), reader_of(settings, dataset.features), numbers)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if len(numbers) < _ALONE or workers == 1:
        workers = 0
    report = QualityReport()
    # A generator of its own: only one process of a run scans, and all go on with the same random numbers.
    batches = DataLoader(
        reading, batch_size=_SCAN_BATCH, collate_fn=list, num_workers=workers, generator=torch.Generator()
    )
    with tqdm(total=len(numbers), desc=f"Checking {name}", unit="row") as bar:
        for found in batches:
            report.bad += [bad for bad in found if bad is not None]
            report.rows += len(found)
            bar.update(len(found))
    return report


@dataclass
class _Reading(TorchDataset):
    """What is bad about rows of these numbers."""

    rows: Dataset
    reader: LabelReader
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitems__(self, indices: Sequence[int]) -> list[BadRow | None]:
        numbers = [self.numbers[index] for index in indices]
        rows = [self.rows[number] for number in numbers]
        # Images may come from a network.
        with ThreadPoolExecutor() as threads:
            return list(threads.map(lambda number, row: read_row(number, row, self.reader)[1], numbers, rows))


def _remembered_report(dataset: Dataset, settings: ImageSettings) -> Path:
    columns = [
        _RULES,
        *(getattr(settings, field) for field in settings.COLUMNS),
        settings.class_names,
        settings.max_image_pixels,
    ]
    files = image_files_key(with_stored_images(dataset, settings.image_column), settings.image_column)
    key = hashlib.blake2b(json.dumps([dataset._fingerprint, columns, files]).encode(), digest_size=16).hexdigest()
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_chain" / "quality" / f"{key}.json"
