"""A stage of a graft as a launcher starts it: `torchrun … graft_run.py FOLDER SETTINGS`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hf_chain.runs.training_run import last_whole_checkpoint
from hf_chain.trainer.graft_trainer import GraftTrainer
from support.grafts import Chats, tiny_graft_trainer, tiny_vlm

STEPS, GLOBAL_BATCH, ACCUMULATION = 4, 8, 2
# With two processes the first one has text alone in the second micro-batch, and both have in the fourth.
WITH_IMAGES = {0, 1, 2, 3, 6, 7, 8, 11, *range(16, 32)}
SETTINGS: dict[str, Any] = {
    "parts": {"adapter": 1e-3, "image_tokens": 1e-2, "encoder.last:2": 5e-4, "lora": 2e-3},
    "lora": {"r": 4},
    "max_steps": STEPS,
    "gradient_accumulation_steps": ACCUMULATION,
    "per_device_train_batch_size": GLOBAL_BATCH // ACCUMULATION,
    "train_sampling_strategy": "sequential",
    "lr_scheduler_type": "cosine",
    "adam_epsilon": 1e-4,
    "save_strategy": "steps",
    "save_steps": 2,
}


class Stream(IterableDataset):
    """The rows of a data set, one after the other."""

    def __init__(self, rows: Chats) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from (self.rows[row] for row in range(len(self.rows)))


def run(folder: Path, stream: bool = False, **settings: Any) -> GraftTrainer:
    """Trains to the end, from the last whole checkpoint in `folder` on, and saves into `folder/final`."""
    dataset: Any = Chats(STEPS * GLOBAL_BATCH, WITH_IMAGES)
    if stream:
        dataset = Stream(dataset)
    trainer = tiny_graft_trainer(folder, tiny_vlm(), train_dataset=dataset, **(SETTINGS | settings))
    checkpoint = last_whole_checkpoint(folder)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(folder / "final"))
    if trainer.args.should_save:
        (folder / "log.json").write_text(json.dumps(trainer.state.log_history))
    return trainer


if __name__ == "__main__":
    run(Path(sys.argv[1]), **json.loads(sys.argv[2]))
