"""Counting of rows that cannot be used: broken images, empty captions, labels that are no class."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from tqdm.auto import tqdm
from transformers.utils import logging

from hf_chain.data.captions import CaptionReader
from hf_chain.data.columns import check_columns, undecoded
from hf_chain.data.images import decode_image, image_path
from hf_chain.data.settings import DataSettings
from hf_chain.errors import HfChainError


logger = logging.get_logger(__name__)

_SCAN_BATCH = 256
_EXAMPLES = 3
# A stream is not judged before this many rows, or one bad row at its start would stop it.
_FIRST_JUDGEMENT = 1_000


@dataclass(frozen=True)
class BadRow:
    """One row with a problem; `usable` where enough of it is left to train on."""

    row: int | str
    path: str | None
    problem: str
    usable: bool

    def __str__(self) -> str:
        place = f"row {self.row}" + (f" ({self.path})" if self.path else "")
        return f"{place}: {self.problem}"


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
    def good_indices(self) -> list[int]:
        """Numbers of the rows that can be trained on."""
        dropped = {bad.row for bad in self.bad if not bad.usable}
        return [row for row in range(self.rows) if row not in dropped]

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
        """Write the report as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
            json.dump(
                {"rows": self.rows, "bad": [asdict(bad) for bad in self.bad]}, file, ensure_ascii=False, indent=1
            )
        os.replace(file.name, path)

    @classmethod
    def read(cls, path: str | Path) -> QualityReport:
        """Read what `write` has written."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(content["rows"], [BadRow(**bad) for bad in content["bad"]])


class RunningCount:
    """The count of a stream, judged while it runs."""

    def __init__(self, max_bad_share: float) -> None:
        self.max_bad_share = max_bad_share
        self.report = QualityReport()

    def add(self, bad: BadRow | None) -> None:
        """Count one row; raise `HfChainError` as soon as the share cannot be kept any more."""
        self.report.rows += 1
        if bad is None:
            return
        self.report.bad.append(bad)
        logger.warning(f"the stream has a bad row, {bad}")
        if len(self.report.bad) > self.max_bad_share * max(self.report.rows, _FIRST_JUDGEMENT):
            self.report.check("the stream", self.max_bad_share)

    def finish(self) -> None:
        """Judge the whole stream at its end."""
        self.report.check("the stream", self.max_bad_share)


def inspect_row(
    number: int | str, row: Mapping[str, Any], reader: CaptionReader, root: str | None = None
) -> BadRow | None:
    """Decode one row and return its problem, or `None` for a good one.

    Args:
        number (`int` or `str`): Row number or key.
        row (`Mapping`): The row, with its image not decoded.
        reader (`CaptionReader`): Finds captions and label.
        root (`str`, *optional*): Folder that relative image paths start from.
    """
    path = image_path(row[reader.settings.image_column])
    try:
        decode_image(row[reader.settings.image_column], root)
    except Exception as error:  # Pillow's decoders raise errors of every kind.
        return BadRow(number, path, f"image cannot be read, {_one_line(error)}", usable=False)
    try:
        reader.label(row)
    except ValueError as error:
        return BadRow(number, path, str(error), usable=False)
    captions, problems = reader.captions(row)
    return BadRow(number, path, ", ".join(problems), usable=bool(captions)) if problems else None


def check_quality(
    dataset: Dataset,
    settings: DataSettings,
    *,
    name: str = "the data",
    report_file: str | Path | None = None,
    root: str | None = None,
) -> list[int]:
    """Decode every row once, before training, and return those that can be used.

    The result is remembered in the `datasets` cache by the fingerprint of the data, so that no data set is scanned
    twice.

    Args:
        dataset (`datasets.Dataset`): One split.
        settings (`DataSettings`): Columns, and the share of bad rows allowed.
        name (`str`, *optional*): Name of the split in messages.
        report_file (`str` or `pathlib.Path`, *optional*): Where to write the list of bad rows, if there are any.
        root (`str`, *optional*): Folder that relative image paths start from.

    Returns:
        `list[int]`: Row numbers.

    Raises:
        `HfChainError`: Where more than `max_bad_share` of the rows are bad, or a column is missing.
    """
    check_columns(dataset, settings)
    remembered = _remembered_report(dataset, settings)
    if remembered.exists():
        report = QualityReport.read(remembered)
    else:
        report = _scan(dataset, settings, name, root)
        report.write(remembered)
    if report.bad and report_file is not None:
        report.write(report_file)
    report.check(name, settings.max_bad_share, report_file or remembered)
    return report.good_indices


def _scan(dataset: Dataset, settings: DataSettings, name: str, root: str | None) -> QualityReport:
    rows = undecoded(dataset, settings)
    reader = CaptionReader(settings, dataset.features)
    report = QualityReport()
    with ThreadPoolExecutor() as threads, tqdm(total=len(rows), desc=f"Checking {name}", unit="row") as bar:
        for start in range(0, len(rows), _SCAN_BATCH):
            numbers = range(start, min(start + _SCAN_BATCH, len(rows)))
            batch = [rows[number] for number in numbers]
            found = threads.map(lambda number, row: inspect_row(number, row, reader, root), numbers, batch)
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
    key = hashlib.blake2b(json.dumps([dataset._fingerprint, columns]).encode(), digest_size=16).hexdigest()
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_chain" / "quality" / f"{key}.json"


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]
