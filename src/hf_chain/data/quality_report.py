"""Reports of rows that cannot be used, for a scanned split and for a running stream."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from transformers.utils import logging

from hf_chain.errors import HfChainError

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
