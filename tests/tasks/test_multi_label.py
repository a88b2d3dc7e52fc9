"""Multi-label classifiers: the loss of the stock class, a teacher's classes, accumulation, resuming, cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import default_data_collator

from hf_chain.cost import classifier_macs
from hf_chain.errors import HfChainError
from support.classifiers import classifier, logs, multi_label_classifier, rows, trainer
from support.trainer_kinds import changed, weights


def test_the_loss_is_the_stock_models_and_the_distance_that_of_the_teachers_classes(tmp_path: Path) -> None:
    model, teacher = multi_label_classifier(), multi_label_classifier(seed=1)
    batch = default_data_collator(rows(model, 8))
    expected = model(pixel_values=batch["pixel_values"], labels=batch["labels"])
    with torch.no_grad():
        known = teacher(batch["pixel_values"]).logits.sigmoid()
    given = expected.logits.sigmoid()
    distance = (known * (known / given).log() + (1 - known) * ((1 - known) / (1 - given)).log()).mean()
    model.train()
    found = trainer(tmp_path, model, teacher).compute_loss(model, batch)
    assert distance > 0.01 and found.item() == pytest.approx((expected.loss + distance).item(), rel=1e-5)


def test_accumulated_batches_train_as_a_large_one(tmp_path: Path) -> None:
    whole = trainer(tmp_path, multi_label_classifier(), multi_label_classifier(1))
    parts = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "micro_batch_size": 2}
    small = trainer(tmp_path, multi_label_classifier(), multi_label_classifier(1), **parts)
    whole.train()
    small.train()
    for name in ("loss", "multi_label_loss", "feature_loss", "grad_norm", "macs"):
        assert logs(small, name) == pytest.approx(logs(whole, name), rel=1e-3), name


def test_a_resumed_training_is_the_uninterrupted_one_and_costs_what_was_planned(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path, multi_label_classifier(), multi_label_classifier(1), **settings)
    whole.train()
    resumed = trainer(tmp_path, multi_label_classifier(2), multi_label_classifier(1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logs(resumed, "loss") == logs(whole, "loss")
    assert changed(resumed.model, weights(whole.model)) == set()
    planned = 4 * 8 * (3 + 1) * sum(classifier_macs(whole.model.config))
    assert whole.step_cost(4).total_macs(4) == logs(whole, "macs")[-1] == logs(resumed, "macs")[-1] == planned


def test_what_does_not_fit_is_refused_in_a_line(tmp_path: Path) -> None:
    def refused(words: str, **given: object) -> None:
        with pytest.raises(HfChainError, match=words) as error:
            trainer(tmp_path, **({"model": multi_label_classifier(), "task": "multi_label"} | given)).train()  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    refused("the model to train has problem_type=None in its configuration: set 'multi", model=classifier())
    refused("or its problem_type is another", teacher=classifier())
    refused(r"have shape \[8, 3\] and the logits \[8, 2\]", model=multi_label_classifier(num_labels=2))
    refused("^label_smoothing_factor is 0.1 and would do nothing", label_smoothing_factor=0.1)
