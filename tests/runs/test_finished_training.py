"""A training that is resumed from its last step, as after a kill before its model was saved, takes no further one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

from support.grafts import Chats, tiny_graft_trainer
from support.pairs import RandomPairs, tiny_trainer


class Stream(IterableDataset):
    """A data set's rows, again and again, without a length."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from (self.rows[row] for row in range(len(self.rows)))


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("trainer_of", "rows"), [(tiny_trainer, RandomPairs()), (tiny_graft_trainer, Chats())])
def test_a_finished_training_is_not_trained_further(
    trainer_of: Any, rows: Any, streamed: bool, tmp_path: Path
) -> None:
    """Half an epoch, or of a stream as many steps, at a rate that is not zero at its end."""
    settings = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    whole, resumed = (
        trainer_of(tmp_path, train_dataset=Stream(rows) if streamed else rows, **settings) for _ in range(2)
    )
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed.state.global_step == whole.state.global_step == 1
    assert resumed.state.total_flos == whole.state.total_flos
    expected = dict(whole.model.named_parameters())
    for name, weight in resumed.model.named_parameters():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=0, msg=name)
    logged = [
        [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] for trainer in (whole, resumed)
    ]
    assert logged[0] == logged[1]
