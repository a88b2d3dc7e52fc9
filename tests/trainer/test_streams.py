"""Streams in ChainTrainer: every batch is whole, and a training goes on in the pass that it was in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from hf_chain.errors import HfChainError
from support.pairs import StreamedPairs, tiny_trainer


def test_batches_are_whole_where_a_pass_ends(tmp_path: Path) -> None:
    """Rows that are left over would have few negatives, and a single one none at all."""
    loader = iter(tiny_trainer(tmp_path, train_dataset=StreamedPairs(17)).get_train_dataloader())
    batches = [next(loader)["image_ids"].tolist() for _ in range(5)]
    assert [len(batch) for batch in batches] == [8] * 5
    rows = sum(batches, [])
    assert sorted(rows[:17]) == sorted(rows[17:34]) == list(range(17)) and rows[:17] != rows[17:34]


@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("dispatch", [None, False])
def test_a_stream_without_a_whole_batch_is_refused(rows: int, dispatch: bool | None, tmp_path: Path) -> None:
    trainer = tiny_trainer(
        tmp_path, train_dataset=StreamedPairs(rows), accelerator_config={"dispatch_batches": dispatch}
    )
    with pytest.raises(HfChainError, match=f"^the stream has {rows} rows and a batch over all processes 8: lower "):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_training_resumed_in_a_later_pass_goes_on_there(tmp_path: Path) -> None:
    def trained(again: bool) -> dict[str, torch.Tensor]:
        settings = {"save_strategy": "steps", "save_steps": 5, "max_steps": 8, "save_total_limit": None}
        trainer = tiny_trainer(tmp_path, train_dataset=StreamedPairs(17), **settings)
        trainer.train(resume_from_checkpoint=again)
        return trainer.model.state_dict()

    whole = trained(again=False)
    shutil.rmtree(tmp_path / "checkpoint-8")
    assert all(torch.equal(weight, whole[name]) for name, weight in trained(again=True).items())
