"""Trainings of stock models with a teacher, a task each, as a launcher starts them: `torchrun … tasks_run.py FOLDER
SETTINGS`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import siglips, vision_text
from support.classifiers import classifier, masked_model, multi_label_classifier, trainer
from support.language_models import language_trainer, tiny_language_model

BATCH = 8
TASKS: dict[str, tuple[Callable[..., Any], Callable[[], Any], Callable[[], Any]]] = {
    "causal_lm": (
        language_trainer,
        lambda: tiny_language_model(tie_word_embeddings=True),
        lambda: tiny_language_model("gpt2", 1),
    ),
    "classification": (trainer, classifier, lambda: classifier(seed=1)),
    "contrastive": (
        partial(vision_text.trainer, micro_batch_size=4),
        lambda: vision_text.two_towers(24, 2),
        vision_text.two_towers,
    ),
    "masked_image": (
        trainer,
        lambda: masked_model(hidden_size=36, num_attention_heads=6),
        lambda: masked_model(seed=1),
    ),
    "multi_label": (trainer, multi_label_classifier, lambda: multi_label_classifier(1, hidden_size=36)),
    # Micro-batches of pairs are embedded twice, so whole batches cost less.
    "sigmoid": (partial(siglips.trainer, micro_batch_size=4), lambda: siglips.siglip(24, 2), siglips.siglip),
}
"""Task -> its trainer, the model and the teacher: another family's, or one of another width."""


def run(folder: Path, **settings: Any) -> None:
    """Trains each, and saves it with its log in a folder of its own."""
    # Once an engine is known, transformers builds models in pieces.
    models = {task: (model(), teacher()) for task, (_, model, teacher) in TASKS.items()}
    for task, pair in models.items():
        given = {"train_sampling_strategy": "sequential", "optim": "sgd", "learning_rate": 0.1} | settings
        training = TASKS[task][0](folder / task, *pair, **given)
        training.train()
        training.save_model(str(folder / task / "end"))
        if training.args.should_save:
            (folder / task / "log.json").write_text(json.dumps(training.state.log_history))


if __name__ == "__main__":
    run(Path(sys.argv[1]), **json.loads(sys.argv[2]))
