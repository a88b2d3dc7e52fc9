"""A stream that begins anew where it ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import count
from typing import Any

from torch.utils import data

from hf_chain.errors import HfChainError


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
