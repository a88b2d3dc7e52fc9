"""Passes without an end over a data set, and the lanes in which processes share one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy, deepcopy
from itertools import count
from typing import Any

import torch
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils import data

from hf_chain.errors import HfChainError


class Epochs:
    """An epoch that all dataloader workers see."""

    def __init__(self) -> None:
        # Shared memory, so that workers that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch that samples are drawn for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose what is drawn in another epoch."""
        self._epoch.fill_(epoch)


class RowStream(Epochs, data.IterableDataset):
    """What streams of samples share: lanes, epochs and where they stand."""

    _rows: IterableDataset
    lanes = 1
    """Lanes of the stream that this is one of."""

    def lane(self, index: int, lanes: int, reports: bool = True) -> Any:
        """Return the part of the stream in every `lanes`-th of its files, which has passes of its own.

        Args:
            index (`int`): Which part.
            lanes (`int`): Number of parts; divides the number of files, or each part reads all of them.
            reports (`bool`, *optional*, defaults to `True`): Whether it reports what is wrong with its rows.
        """
        part = copy(self)
        part._epoch = self._epoch.clone().share_memory_()
        part.lanes = lanes
        if lanes > 1:
            part._rows = split_dataset_by_node(self._rows, rank=index, world_size=lanes)
        return part

    @property
    def files(self) -> int:
        """Files, or other sources, that the stream is read from."""
        return self._rows.num_shards

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of another epoch, and what is drawn in it."""
        super().set_epoch(epoch)
        self._rows.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands; rows waiting in a shuffle buffer are not part of it."""
        return {"epoch": self.epoch, "rows": self._rows.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.set_epoch(state["epoch"])
        self._rows.load_state_dict(state["rows"])


class EndlessStream(data.IterableDataset):
    """The passes of a stream one after the other, so that neither a batch nor an accumulated step ends between them.

    A training that goes on skips the batches it has had, which it can only within one pass of a Trainer.

    Args:
        stream (`torch.utils.data.IterableDataset`): One pass; its order depends on the number of the pass.
        least (`int`, *optional*, defaults to 1): Rows that a pass must have, such as those of a batch over all
            processes, in which they would come twice otherwise.
        passes (`int`, *optional*, defaults to 1): Passes that have them together.

    Raises:
        `HfChainError`: While rows are drawn, where they have fewer.
    """

    def __init__(self, stream: Any, least: int = 1, passes: int = 1) -> None:
        self.stream, self.least, self.passes = stream, least, passes
        self._first, self._begun = 0, False

    def state_dict(self) -> dict[str, Any]:
        """Return the pass and where it stands."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._first, self._begun = state["epoch"], True
        self.stream.load_state_dict(state)

    def __iter__(self) -> Iterator[Any]:
        if data.get_worker_info() is not None:
            # The epoch of a stream lies in memory that all workers share, and each is in a pass of its own.
            self.stream = deepcopy(self.stream)
        rows = 0
        for number in count(self._first):
            if hasattr(self.stream, "set_epoch"):
                self.stream.set_epoch(number)
            for row in self.stream:
                rows += 1
                yield row
            if (number - self._first + 1) % self.passes:
                continue
            found, rows = rows, 0
            if number < self._first + self.passes and self._begun:
                continue
            if not found and data.get_worker_info() is not None:
                # A worker without a share of the files has none in any pass.
                return
            if found < self.least:
                raise HfChainError(self._too_short(found))

    def _too_short(self, rows: int) -> str:
        worker = data.get_worker_info()
        whose = "the stream" if worker is None else f"the share of one of {worker.num_workers} dataloader workers"
        if self.least == 1:
            return f"{whose} has no rows: check its source and split"
        return (
            f"{whose} has {rows} rows and a batch over all processes {self.least}: lower per_device_train_batch_size"
            + ("" if worker is None else " or dataloader_num_workers")
        )


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
    """Global batches of a stream without end, in which each lane fills the same positions every time.

    The lanes depend on the stream alone, so that two processes see what one would. Each reads the lanes that its
    slices of the batches come from; what only others use is `None`, for accelerate to drop.

    Args:
        stream (`RowStream`): The stream; its `settings` say how many lanes it has at most.
        batch (`int`): Samples of a batch over all processes.
        mine (`range`): Places of the batch that this process uses.
        workers (`int`, *optional*, defaults to 0): Dataloader workers of a process.

    Raises:
        `HfChainError`: While rows are drawn, where the stream has fewer than a batch.
    """

    def __init__(self, stream: Any, batch: int, mine: range, workers: int = 0) -> None:
        lanes = number_of_lanes(stream.files, min(stream.settings.stream_lanes, batch), workers)
        self.mine, self._position = mine, 0
        # A lane's rows lie together, so that few processes share one.
        self._lane_of = [position * lanes // batch for position in range(batch)]
        self._lanes: dict[int, EndlessStream] = {}
        for position in mine:
            lane = self._lane_of[position]
            if lane not in self._lanes:
                first = lane not in self._lane_of[: mine.start]
                rows = stream.lane(lane, lanes, reports=first)
                # A lane's files are others in each pass, and may be of any size.
                self._lanes[lane] = EndlessStream(rows, least=batch, passes=lanes)

    def state_dict(self) -> dict[str, Any]:
        """Return where each lane stands, and the position of the next sample in its batch."""
        return {"position": self._position, "lanes": {lane: rows.state_dict() for lane, rows in self._lanes.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._position = state["position"]
        for lane, rows in self._lanes.items():
            rows.load_state_dict(state["lanes"][lane])

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        lanes = {lane: iter(rows) for lane, rows in self._lanes.items()}
        for position in count(self._position):
            position %= len(self._lane_of)
            lane = self._lane_of[position]
            # Rows of a lane that is shared count for all who share it: which are bad is known after decoding.
            try:
                sample = next(lanes[lane]) if lane in lanes else None
            except StopIteration:
                # A worker without a share of the files.
                return
            self._position = position + 1
            yield sample
