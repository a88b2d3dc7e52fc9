"""A stream whose files are dealt to lanes, so that processes read their own rows only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from torch.utils import data

from hf_chain.data.endless import EndlessStream

if TYPE_CHECKING:
    from hf_chain.data.dataset import ImageTextStream


def number_of_lanes(files: int, most: int, workers: int = 0) -> int:
    """Return the most lanes that share the files of a stream evenly and leave each dataloader worker a file.

    Args:
        files (`int`): Files of the stream.
        most (`int`): Lanes at most.
        workers (`int`, *optional*, defaults to 0): Dataloader workers of a process.
    """
    return max(
        (number for number in range(1, most + 1) if files % number == 0 and files // number >= workers), default=1
    )


class LanedStream(data.IterableDataset):
    """Global batches of a stream without end, in which each lane fills the same places every time.

    The lanes depend on the stream alone, so that two processes see what one would. Each reads the lanes that its
    slices of the batches come from; what only others use is `None`, for accelerate to drop.

    Args:
        stream (`ImageTextStream`): The stream.
        batch (`int`): Samples of a batch over all processes.
        mine (`range`): Places of the batch that this process uses.
        workers (`int`, *optional*, defaults to 0): Dataloader workers of a process.

    Raises:
        `HfChainError`: While rows are drawn, where the stream has fewer than a batch.
    """

    def __init__(self, stream: ImageTextStream, batch: int, mine: range, workers: int = 0) -> None:
        lanes = number_of_lanes(stream.files, min(stream.settings.stream_lanes, batch), workers)
        self.mine, self._place = mine, 0
        # A lane's rows lie together, so that few processes share one.
        self._lane_of = [place * lanes // batch for place in range(batch)]
        self._lanes: dict[int, EndlessStream] = {}
        for place in mine:
            lane = self._lane_of[place]
            if lane not in self._lanes:
                first = lane not in self._lane_of[: mine.start]
                rows = stream.lane(lane, lanes, reports=first)
                # A lane's files are others in each pass, and may be of any size.
                self._lanes[lane] = EndlessStream(rows, least=batch, passes=lanes)

    def state_dict(self) -> dict[str, Any]:
        """Return where each lane stands, and the place of the next sample in its batch."""
        return {"place": self._place, "lanes": {lane: rows.state_dict() for lane, rows in self._lanes.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._place = state["place"]
        for lane, rows in self._lanes.items():
            rows.load_state_dict(state["lanes"][lane])

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        lanes = {lane: iter(rows) for lane, rows in self._lanes.items()}
        for place in count(self._place):
            place %= len(self._lane_of)
            lane = self._lane_of[place]
            # Rows of a lane that is shared count for all who share it: which are bad is known after decoding.
            try:
                sample = next(lanes[lane]) if lane in lanes else None
            except StopIteration:
                # A worker without a share of the files.
                return
            self._place = place + 1
            yield sample
