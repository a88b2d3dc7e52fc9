"""Batches of a stage whose rows are put together by their lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset

from hf_chain.data.chat import ChatCollator, check_chat
from support.chat_models import chat_tokenizer, talk
from support.grafts import tiny_graft_trainer


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
    lengths = {order: sorted(n for mask in found for n in mask.sum(1).tolist()) for order, found in masks.items()}
    assert lengths["random"] == lengths["group_by_length"] == sorted(rows["length"])
    padding = {order: sum(int((mask == 0).sum()) for mask in found) for order, found in masks.items()}
    assert padding["group_by_length"] < 0.5 * padding["random"]
