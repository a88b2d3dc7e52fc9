"""Chat rows as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import IterableDataset
from torch.utils import data

from hf_chain.data.chat.encoder import ChatEncoder
from hf_chain.data.chat.quality import check_row
from hf_chain.data.quality_report import RunningCount
from hf_chain.images import MAX_IMAGE_PIXELS


class ChatStream(data.IterableDataset):
    """Chat rows of a stream; bad rows are counted, skipped, and stop the run past `max_bad_share`.

    Workers share the files of the stream. Processes are left to accelerate, which cuts every global batch in slices
    (with `dispatch_batches=False`), so that two processes see what one would.

    Args:
        rows (`datasets.IterableDataset`): One split of `load_chat`.
        encoder (`ChatEncoder`): The collator's.
        max_bad_share (`float`, *optional*, defaults to 0.01): Share of bad rows above which it stops.
        max_image_pixels (`int`, *optional*): Pixels above which an image is not read and its row is bad.
        report_file (`str` or `pathlib.Path`, *optional*): JSON lines file that bad rows are appended to.
    """

    def __init__(
        self,
        rows: IterableDataset,
        encoder: ChatEncoder,
        *,
        max_bad_share: float = 0.01,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
        report_file: str | Path | None = None,
    ) -> None:
        self.rows, self.encoder = rows, encoder
        self.max_bad_share, self.report_file = max_bad_share, report_file
        self.max_image_pixels = max_image_pixels
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
            length, bad = check_row(counted.report.rows, row, self.encoder, self.max_image_pixels)
            counted.add(bad)
            if length:
                yield {**row, "length": length}
        counted.finish()
