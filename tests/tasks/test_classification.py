"""Image classifiers in a chain: the loss of the stock class, a teacher's classes, accumulation, resuming, cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageClassification, DeiTForImageClassificationWithTeacher, default_data_collator

from hf_chain.cost import classifier_macs
from hf_chain.errors import HfChainError
from hf_chain.trainer import ChainConfig
from support.classifiers import KINDS, classifier, logs, rows, trainer
from support.trainer_kinds import changed, weights


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_that_has_a_gradient_is_trained_and_none_of_the_teacher(kind: str, tmp_path: Path) -> None:
    teacher = classifier(kind, seed=1)
    trained = trainer(tmp_path, classifier(kind), teacher, max_steps=2)
    before, taught = weights(trained.model), weights(teacher)
    trained.train()
    idle = {name for name in before if name.endswith(("key.bias", "k_proj.bias", "mask_token"))}
    assert before.keys() - changed(trained.model, before) <= idle
    assert not changed(teacher, taught)
    trained.save_model(str(tmp_path / "end"))
    saved = AutoModelForImageClassification.from_pretrained(tmp_path / "end")
    assert all(torch.equal(weight, trained.model.state_dict()[name]) for name, weight in saved.state_dict().items())


def test_the_loss_is_the_stock_models_and_the_distance_that_of_the_teachers_classes(tmp_path: Path) -> None:
    model, teacher = classifier(), classifier(seed=1)
    batch = default_data_collator(rows(model, 8))
    trained = trainer(tmp_path, model, teacher)
    expected = model(pixel_values=batch["pixel_values"], labels=batch["labels"])
    with torch.no_grad():
        probabilities = teacher(batch["pixel_values"]).logits.softmax(-1)
    distance = kl_div(log_softmax(expected.logits, -1), probabilities, reduction="none").sum(-1).mean()
    model.train()
    assert trained.compute_loss(model, batch).item() == pytest.approx((expected.loss + distance).item(), rel=1e-5)
    smoothed = trainer(tmp_path, model, label_smoothing_factor=0.3).compute_loss(model, batch)
    log_probabilities = log_softmax(expected.logits, -1)
    target = 0.7 * torch.nn.functional.one_hot(batch["labels"], 3) + 0.1
    assert smoothed.item() == pytest.approx(-(target * log_probabilities).sum(-1).mean().item(), rel=1e-5)


def test_accumulated_batches_train_as_a_large_one(tmp_path: Path) -> None:
    """In epochs of three and a half batches, of which a half is dropped."""
    whole = trainer(tmp_path, teacher=classifier(seed=1))
    parts = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "micro_batch_size": 2}
    small = trainer(tmp_path, teacher=classifier(seed=1), **parts)
    for each in (whole, small):
        each.train_dataset = rows(each.model, 28)
        each.train()
        assert each.state.epoch == pytest.approx(4 / 3)
    for name in ("loss", "classification_loss", "feature_loss", "grad_norm", "macs"):
        assert logs(small, name) == pytest.approx(logs(whole, name), rel=1e-3), name


@pytest.mark.parametrize("kind", ["vit", "swin", "dinov2"])
def test_a_resumed_training_is_the_uninterrupted_one(kind: str, tmp_path: Path) -> None:
    """Their weights have other names in files than in memory."""
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path, classifier(kind), **settings)
    whole.train()
    resumed = trainer(tmp_path, classifier(kind, seed=2), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logs(resumed, "loss") == logs(whole, "loss")
    assert changed(resumed.model, weights(whole.model)) == set()
    wider = trainer(tmp_path, classifier(kind, num_labels=4), **settings)
    with pytest.raises(HfChainError, match=r"checkpoint-2 does not fit the model: .*classifier"):
        wider.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


@pytest.mark.parametrize("kind", KINDS)
def test_cost_is_what_torch_counts(kind: str, tmp_path: Path) -> None:
    model = classifier(kind)
    model.set_attn_implementation("eager")
    side = model.config.image_size
    forward = sum(classifier_macs(model.config))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, side, side))
    assert counter.get_total_flops() == pytest.approx(2 * forward, rel=0.03)
    assert trainer(tmp_path, model, classifier(kind)).step_cost(4).total_macs(4) == 4 * 8 * (3 + 1) * forward


def test_a_frozen_encoder_costs_its_forward_pass(tmp_path: Path) -> None:
    model = classifier()
    model.base_model.requires_grad_(False)
    encoder, head = classifier_macs(model.config)
    assert trainer(tmp_path, model).step_cost(4).total_macs(4) == 4 * 8 * (encoder + 3 * head)


def test_metrics_get_logits_and_class_numbers(tmp_path: Path) -> None:
    trained = trainer(tmp_path)
    trained.compute_metrics = lambda found: {"top1": (found.predictions[0].argmax(-1) == found.label_ids).mean()}
    assert 0 <= trained.evaluate()["eval_top1"] <= 1


def test_what_does_not_fit_is_refused_in_a_line(tmp_path: Path) -> None:
    def refused(words: str, **given: object) -> None:
        with pytest.raises(HfChainError, match=words) as error:
            trainer(tmp_path, **given).train()  # type: ignore[arg-type]
        assert "\n" not in str(error.value)

    two_heads = DeiTForImageClassificationWithTeacher(classifier("deit").config)
    refused("the model to train is a DeiTForImageClassificationWithTeacher: give", model=two_heads)
    refused("the model to train is a ViTModel: give", model=classifier().base_model)
    refused("the teacher has num_labels=4 and the model 3", teacher=classifier(num_labels=4))
    refused("id2label names other classes", model=named("cat", "dog", "owl"), teacher=named("dog", "cat", "owl"))
    refused("a label is 2 and the model has 2 classes", model=classifier(num_labels=2))
    refused("^label_smoothing_factor=1.0 must be at least 0 and below 1", label_smoothing_factor=1.0)
    refused("^image_token_keep is 0.5 and would do nothing", image_token_keep=0.5)
    with pytest.raises(HfChainError, match="label_smoothing_factor is 0.1 and would do nothing"):
        ChainConfig(str(tmp_path), use_cpu=True, label_smoothing_factor=0.1)


def named(*names: str) -> object:
    model = classifier()
    model.config.id2label = dict(enumerate(names))
    return model
