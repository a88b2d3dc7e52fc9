"""Chat rows as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from datasets import IterableDataset
from torch.utils import data

from hf_chain.data.chat.encoder import ChatEncoder
from hf_chain.data.chat.quality import check_row
from hf_chain.data.quality_report import RunningCount


class ChatStream(data.IterableDataset):
    """Chat rows of a stream; bad rows are counted, skipped, and stop the run past `max_bad_share`.

    Workers share the files of the stream. Processes are left to accelerate, which cuts every global batch in slices
    (with `dispatch_batches=False`), so that two processes see what one would.

    Args:
        rows (`datasets.IterableDataset`): One split of `load_chat`.
        encoder (`ChatEncoder`): The collator's.
        max_bad_share (`float`, *optional*, defaults to 0.01): Share of bad rows above which it stops.
        report_file (`str` or `pathlib.Path`, *optional*): JSON lines file that bad rows are appended to.
    """

    def __init__(
        self,
        rows: IterableDataset,
        encoder: ChatEncoder,
        *,
        max_bad_share: float = 0.01,
        report_file: str | Path | None = None,
    ) -> None:
        self.rows, self.encoder = rows, encoder
        self.max_bad_share, self.report_file = max_bad_share, report_file
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of another epoch."""
        self.epoch = epoch
        self.rows.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands; rows waiting in a shuffle buffer are not part of it."""
        return {"epoch": self.epoch, "rows": self.rows.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.set_epoch(state["epoch"])
        self.rows.load_state_dict(state["rows"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        counted = RunningCount(self.max_bad_share, self.report_file)
        for row in self.rows:
            length, bad = check_row(counted.report.rows, row, self.encoder)
            counted.add(bad)
            if length:
                yield {**row, "length": length}
        counted.finish()


class EndlessStream(data.IterableDataset):
    """The passes of a stream one after the other, so that neither a batch nor an accumulated step ends between them.

    Args:
        stream (`ChatStream`): One pass; its order depends on the number of the pass.
    """

    def __init__(self, stream: ChatStream) -> None:
        self.stream = stream
        self._first = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the pass and where it stands."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._first = state["epoch"]
        self.stream.load_state_dict(state)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in count(self._first):
            self.stream.set_epoch(number)
            rows = 0
            for row in self.stream:
                rows += 1
                yield row
            if not rows and number > self._first:
                # A worker without a share of the files has none in any pass.
                return
