"""The training of a stage: what it counts, and streams whose passes are chained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from datasets import Dataset
from torch.utils.data import IterableDataset

from hf_chain.data.chat.sources import ChatStream
from hf_chain.data.streams import EndlessStream
from hf_chain.methods.graft.planning import _samples
from hf_chain.methods.graft.training import train_parts, training_figures
from hf_chain.runs.training_run import TrackedTraining
from support.grafts import Chats, collate, losses, tiny_vlm

ROWS = 20


class Passes(ChatStream):
    """Conversations in another order in every pass, as a shuffled stream has them."""

    def __init__(self) -> None:
        rows = Dataset.from_dict({"row": range(ROWS)}).to_iterable_dataset()
        super().__init__(rows.shuffle(0, buffer_size=ROWS), None)  # type: ignore[arg-type]

    def __iter__(self) -> Any:
        for row in self.rows:
            yield Chats(ROWS)[row["row"]]


def trained(folder: Path, rows: Any, epochs: float, **training: Any) -> Any:
    """A training in float32 with a step of 8 rows in two micro-batches."""
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "bf16": False, "save_steps": 3}
    settings |= {"logging_steps": 1, "disable_tqdm": True, "save_total_limit": 9} | training
    return train_parts(
        tiny_vlm(),
        {"adapter": 1e-2},
        rows,
        collate,
        None,
        epochs=epochs,
        tracked=TrackedTraining(folder.parent, "encoder", settings),
        seed=0,
        checkpoints=folder,
        main_process=True,
        stream_length=ROWS if isinstance(rows, IterableDataset) else None,
    )


def test_the_rows_of_a_short_last_step_are_counted_as_they_are(tmp_path: Path) -> None:
    trainer = trained(tmp_path, Chats(10), 2)
    assert training_figures(trainer)["samples"] == _samples(10, 8, 2) == 20


def test_a_step_does_not_end_with_a_pass_of_a_stream(tmp_path: Path) -> None:
    """Otherwise the third step would be made of 4 rows, and count as much as the others."""
    drawn = [list(row["input_ids"]) for row, _ in zip(EndlessStream(Passes()), range(2 * ROWS), strict=False)]
    assert sorted(drawn[:ROWS]) == sorted(drawn[ROWS:]) and drawn[:ROWS] != drawn[ROWS:]
    trainer = trained(tmp_path, Passes(), 2)
    tokens = [
        round(entry["tokens_per_second"] * entry["seconds"])
        for entry in trainer.state.log_history
        if "tokens_per_second" in entry
    ]
    steps = [drawn[start : start + 8] for start in range(0, 2 * ROWS, 8)]
    assert tokens == [sum(map(len, rows)) for rows in steps]
    assert training_figures(trainer)["samples"] == 2 * ROWS


def test_a_training_resumed_in_the_second_pass_of_a_stream_goes_on_there(tmp_path: Path) -> None:
    whole = trained(tmp_path, Passes(), 2)
    shutil.rmtree(tmp_path / "checkpoint-5")
    resumed = trained(tmp_path, Passes(), 2)
    assert losses(resumed) == losses(whole) and len(losses(whole)) == 5
