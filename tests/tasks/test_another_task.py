"""A paradigm is one file: ChainTrainer trains what a task that it has never seen says."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageClassification, SiglipConfig, SiglipForImageClassification

from hf_chain import tasks
from hf_chain.cost import StepCost
from hf_chain.errors import HfChainError
from hf_chain.evaluation import EVALUATORS, find_evaluator
from hf_chain.tasks.task import Task
from hf_chain.trainer import ChainConfig, ChainTrainer, chain_trainer
from support.trainer_kinds import changed, weights

CLASSES = 3


class LabelTask(Task):
    """Classification; the teacher hands on logits."""

    evaluator, collator, labels = "dual_encoder", "default_data_collator", "labels"
    inputs = ("pixel_values",)
    additive = True
    columns = ["pixel_values", "labels"]

    def teacher(self, given, student):
        given.eval().requires_grad_(False)
        return SimpleNamespace(features=lambda batch: (given(batch["pixel_values"]).logits,))

    def wrap(self, model, teacher):
        return model

    def step_cost(self, model, teacher, data, steps):
        macs = 3 * model.num_parameters()
        return StepCost(self.args.train_batch_size, (macs, macs))

    def loss(self, features, batch):
        return cross_entropy(features["logits"], batch["labels"])

    def handed(self, features):
        return (features["logits"],)

    def feature_loss(self, student, teacher):
        return (student[0] - teacher[0]).square().mean()

    def predictions(self, features, batch):
        return (features["logits"],)


@pytest.fixture
def label_task(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("hf_chain.tasks.labels")
    module.LabelTask, module.check_values = LabelTask, lambda values: None  # type: ignore[attr-defined]
    module.FEATURE_LOSS_WEIGHT = 1.0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(tasks.TASKS, "labels", "LabelTask")


def classifier(seed: int = 0) -> SiglipForImageClassification:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    vision = {**sizes, "image_size": 16, "patch_size": 8}
    config = SiglipConfig(text_config=sizes, vision_config=vision, num_labels=CLASSES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SiglipForImageClassification(config)


def rows(count: int = 32) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(count, 3, 16, 16, generator=generator)
    return [{"pixel_values": image, "labels": number % CLASSES} for number, image in enumerate(pixels)]


def trainer(folder: Path, teacher: Any = None, **settings: Any) -> ChainTrainer:
    values = {"per_device_train_batch_size": 8, "max_steps": 4, "learning_rate": 1e-2, "logging_steps": 1}
    values |= {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no"} | settings
    args = ChainConfig(str(folder), task="labels", **values)
    return ChainTrainer(classifier(), args, teacher, train_dataset=rows(), eval_dataset=rows(8))


def logs(trained: ChainTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trained.state.log_history if name in entry]


@pytest.mark.usefixtures("label_task")
def test_another_task_trains_is_evaluated_and_saved_as_its_stock_class(tmp_path: Path) -> None:
    trained = trainer(tmp_path, classifier(1))
    trained.compute_metrics = lambda found: {"top1": (found.predictions[0].argmax(-1) == found.label_ids).mean()}
    before = weights(trained.model)
    trained.train()
    stuck = before.keys() - changed(trained.model, before)
    assert all("k_proj.bias" in name or "vision_model.head." in name for name in stuck)
    parts = zip(logs(trained, "labels_loss"), logs(trained, "feature_loss"), strict=True)
    assert logs(trained, "loss") == pytest.approx([loss + distance for loss, distance in parts], rel=1e-5)
    assert 0 <= trained.evaluate()["eval_top1"] <= 1
    trained.save_model(str(tmp_path / "end"))
    saved = AutoModelForImageClassification.from_pretrained(tmp_path / "end")
    assert all(torch.equal(weight, trained.model.state_dict()[name]) for name, weight in saved.state_dict().items())


@pytest.mark.usefixtures("label_task")
def test_what_the_trainer_promises_holds_for_another_task(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path, classifier(1), **settings)
    whole.train()
    for name, parts in {
        "micro": {"micro_batch_size": 2},
        "accumulated": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        "both": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "micro_batch_size": 1},
    }.items():
        small = trainer(tmp_path / name, classifier(1), **parts)
        small.train()
        for kind in ("loss", "labels_loss", "feature_loss", "grad_norm"):
            assert logs(small, kind) == pytest.approx(logs(whole, kind), rel=1e-3), (name, kind)
    resumed = trainer(tmp_path, classifier(1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logs(resumed, "loss") == logs(whole, "loss")
    assert changed(resumed.model, weights(whole.model)) == set()


@pytest.mark.usefixtures("label_task")
def test_a_batch_without_what_a_task_reads_is_refused(tmp_path: Path) -> None:
    trained = trainer(tmp_path)
    trained.train_dataset = [{"pixel_values": row["pixel_values"]} for row in rows()]
    with pytest.raises(HfChainError, match="^the batch has no labels, only pixel_values: give data_collator=default"):
        trained.train()


def test_tasks_and_evaluators_are_found_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        HfChainError, match=f"^task='sorting' is unknown: use one of {', '.join(sorted(tasks.TASKS))}$"
    ):
        ChainConfig(str(tmp_path), use_cpu=True, task="sorting")
    assert {tasks.find_task(name).evaluator for name in tasks.TASKS} <= EVALUATORS.keys()
    assert [find_evaluator(name).__name__ for name in EVALUATORS] == list(EVALUATORS.values())


def test_the_trainer_of_members_knows_no_architecture() -> None:
    assert "clip" not in inspect.getsource(chain_trainer).replace("clipped", "").lower()
