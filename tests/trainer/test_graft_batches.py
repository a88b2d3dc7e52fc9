"""Batches of a stage whose rows are put together by their lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from hf_chain.data.chat import ChatCollator, check_chat
from hf_chain.data.chat.collator import PackedRows
from support.chat_models import chat_tokenizer, talk
from support.grafts import Chats, tiny_graft_trainer


def test_every_process_draws_the_same_order_of_lengths(tmp_path: Path) -> None:
    """Whatever each has drawn before: otherwise some rows would be seen twice, and others never."""
    rows = [Chats()[row] for row in range(16)]
    drawn: dict[int, list[list[int]]] = {0: [], 1: []}
    for process in range(2):
        trainer = tiny_graft_trainer(tmp_path, train_dataset=rows, train_sampling_strategy="group_by_length")
        order = trainer._get_train_sampler()
        torch.rand(process)
        for epoch, found in drawn.items():
            order.epoch = epoch
            found.append(list(order))
    for first, second in drawn.values():
        assert first == second and sorted(first) == list(range(16))
    assert drawn[0] != drawn[1]


def test_packs_may_be_put_together_by_their_lengths_too(tmp_path: Path) -> None:
    """As published recipes ask for, whatever they are trained on."""
    packs = PackedRows(Dataset.from_dict({"length": [5, 6, 7, 8, 3]}), 16)
    assert sum(packs.lengths) == 29 and max(packs.lengths) <= 16
    trainer = tiny_graft_trainer(tmp_path, train_dataset=packs, train_sampling_strategy="group_by_length")
    assert sorted(trainer._get_train_sampler()) == list(range(len(packs)))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_batches_by_length_hold_conversations_of_like_lengths(
    tmp_path: Path, accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told apart by the lengths that `check_chat` gives, as chat rows have no `input_ids`."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    collator = ChatCollator(chat_tokenizer())
    talks = [talk("what is this?", " ".join(["red"] * (1 + 7 * n % 32))) for n in range(64)]
    rows = check_chat(Dataset.from_list(talks), collator.encoder)
    masks = {}
    for order in ("random", "group_by_length"):
        settings = {"train_sampling_strategy": order, "gradient_accumulation_steps": accumulation}
        trainer = tiny_graft_trainer(tmp_path, train_dataset=rows, data_collator=collator, **settings)
        masks[order] = [batch["attention_mask"] for batch in trainer.get_train_dataloader()]
        if order == "group_by_length":
            # A column of the data set reads the table for every length: a million rows would wait for minutes.
            assert type(trainer.train_order.sampler.lengths) is list
    lengths = {order: sorted(n for mask in found for n in mask.sum(1).tolist()) for order, found in masks.items()}
    assert lengths["random"] == lengths["group_by_length"] == sorted(rows["length"])
    padding = {order: sum(int((mask == 0).sum()) for mask in found) for order, found in masks.items()}
    assert padding["group_by_length"] < 0.5 * padding["random"]
