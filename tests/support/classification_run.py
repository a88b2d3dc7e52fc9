"""A training of a classifier as a launcher starts it: `torchrun … classification_run.py FOLDER PROCESSES [ENGINE]`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.classifiers import classifier, trainer


def run(folder: Path, processes: int, deepspeed: str | None = None) -> None:
    """Trains on global batches of 8 with a teacher, and writes the model to `folder`."""
    settings = {"per_device_train_batch_size": 8 // processes, "optim": "sgd", "learning_rate": 0.1}
    model, teacher = classifier(), classifier(seed=1)
    trained = trainer(folder.with_suffix(".trainer"), model, teacher, deepspeed=deepspeed, **settings)
    trained.train()
    trained.save_model(str(folder))


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
