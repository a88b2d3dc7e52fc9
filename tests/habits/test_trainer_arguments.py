"""What users hand to a trainer beside model and data: used as the stock Trainer does, or refused in one line."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from transformers import CLIPModel, TrainerCallback

from support import pairs
from support.trainer_kinds import KINDS, Kind, changed, every, made, ours, refused, weights

# Optimizers


@every
def test_an_optimizer_handed_in_trains(kind: Kind, tmp_path: Path) -> None:
    """A step of SGD with the user's rate and schedule, and the Trainer's own optimizer of the same kind, agree."""
    model, reference = kind.model(), kind.model()
    own = SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    halves = LambdaLR(own, lambda step: 0.5**step)
    made(kind, tmp_path, model, {"optimizers": (own, halves)}, learning_rate=7.0).train()
    own = SGD(reference.parameters(), lr=0.05)
    before = weights(reference)
    made(kind, tmp_path, reference, {"optimizers": (own, None)}, lr_scheduler_type="constant", max_steps=1).train()
    assert changed(model, before) >= changed(reference, before) != set()


@every
def test_an_optimizers_class_and_options_are_used(kind: Kind, tmp_path: Path) -> None:
    trainer = made(kind, tmp_path, given={"optimizer_cls_and_kwargs": (SGD, {"momentum": 0.5})}, max_steps=1)
    before = weights(trainer.model)
    trainer.train()
    groups = trainer.optimizer.param_groups
    assert {group["momentum"] for group in groups} == {0.5} and changed(trainer.model, before)


@ours
def test_optimizers_that_would_not_train_the_model_are_refused(kind: Kind, tmp_path: Path) -> None:
    def handed(optimizer: Any, scheduler: Any = None, model: Any = None) -> Callable[[], Any]:
        return lambda: made(kind, tmp_path, model, {"optimizers": (optimizer, scheduler)})

    refused("holds [0-9]+ tensors that are not of the model", handed(SGD(kind.model().parameters(), lr=0.1)))
    model = kind.model()
    schedule = LambdaLR(SGD(model.parameters(), lr=0.1), lambda step: 1.0)
    refused("^the scheduler in optimizers is of another optimizer", handed(None, schedule, model))
    both = SGD(model.parameters(), lr=0.1), schedule
    refused("^the scheduler in optimizers is of another optimizer", handed(*both, model))
    decay = {"optimizer_cls_and_kwargs": (SGD, {"weight_decay": 0.1})}
    refused("^optimizer_cls_and_kwargs has weight_decay", lambda: made(kind, tmp_path, given=decay))


def test_an_optimizer_without_the_maps_to_the_teacher_is_refused(tmp_path: Path) -> None:
    model = pairs.tiny_clip(embedding=16)
    given = {"optimizers": (SGD(model.parameters(), lr=0.1), None), "teacher": pairs.tiny_clip(seed=1)}
    words = r"lacks image_to_teacher.weight, .*: give ChainCLIPModel.from_clip\(model, 12\)"
    refused(words, lambda: made(KINDS["ChainTrainer"], tmp_path, model, given))


def test_an_optimizer_has_what_parts_name_and_parts_no_rates_beside_it(tmp_path: Path) -> None:
    kind = KINDS["GraftTrainer"]

    def handed(name: str, parts: Any) -> Callable[[], Any]:
        model = kind.model()
        own = SGD(model.get_submodule(name).parameters(), lr=0.1)
        return lambda: made(kind, tmp_path, model, {"optimizers": (own, None)}, parts=parts)

    refused("lacks adapter.0.weight", handed("vision_tower", ["adapter"]))
    refused("lacks language_model.*lora_A.* attached before", handed("adapter", ["adapter", "lora"]))
    refused("^part adapter has a learning rate .0.001. and the optimizer", handed("adapter", {"adapter": 1e-3}))
    lr = {"optimizer_cls_and_kwargs": (SGD, {"lr": 0.1})}
    refused("^optimizer_cls_and_kwargs has lr", lambda: made(kind, tmp_path, given=lr))


# Functions and callbacks


@every
def test_metrics_are_computed_of_what_is_predicted(kind: Kind, tmp_path: Path) -> None:
    def first(predictions: Any) -> Any:
        return predictions[0] if isinstance(predictions, tuple) else predictions

    seen: list[int] = []

    def preprocess(logits: Any, labels: Any) -> Any:
        seen.append(len(first(logits)))
        return first(logits) * 0 + 7

    def metrics(prediction: Any) -> dict[str, float]:
        return {"rows": len(first(prediction.predictions)), "mean": float(first(prediction.predictions).mean())}

    # Stock CLIP has no labels, without which no Trainer computes metrics.
    names = {"label_names": ["input_ids"]} if kind.stock is CLIPModel and not kind.ours else {}
    given = {"compute_metrics": metrics, "preprocess_logits_for_metrics": preprocess}
    trainer = made(kind, tmp_path, given=given, **names)
    found = trainer.evaluate()
    assert seen == [8] and found["eval_rows"] == 8 and found["eval_mean"] == 7
    assert len(first(trainer.predict(kind.data(6)).predictions)) == 6


def test_embeddings_and_caption_ids_are_what_metrics_of_a_chain_get(tmp_path: Path) -> None:
    kind, found = KINDS["ChainTrainer"], []
    trainer = made(kind, tmp_path, given={"compute_metrics": lambda prediction: found.append(prediction) or {}})
    trainer.evaluate()
    batch = pairs.collate([pairs.RandomPairs(8)[row] for row in range(8)])
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.model(**{name: batch[name] for name in ("pixel_values", "input_ids", "attention_mask")})
    image, text = found[0].predictions
    torch.testing.assert_close(torch.tensor(image), expected.image_embeds)
    torch.testing.assert_close(torch.tensor(text), expected.text_embeds)
    assert found[0].label_ids.tolist() == batch["caption_ids"].tolist()


@ours
def test_functions_that_would_not_be_called_are_refused(kind: Kind, tmp_path: Path) -> None:
    refused("^compute_loss_func is given", lambda: made(kind, tmp_path, given={"compute_loss_func": max}))
    refused("no model_init", lambda: made(kind, tmp_path, given={"model_init": kind.model}))
    metrics = {"compute_metrics": lambda prediction: {}}
    refused("^compute_metrics", lambda: made(kind, tmp_path, given=metrics, prediction_loss_only=True))
    refused("^hyperparameter_search makes models", made(kind, tmp_path).hyperparameter_search)


@every
def test_callbacks_are_called_as_classes_and_as_objects(kind: Kind, tmp_path: Path) -> None:
    seen: list[str] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append(type(kwargs["model"]).__name__)

    class Again(Watch):
        pass

    made(kind, tmp_path, given={"callbacks": [Watch, Again()]}).train()
    assert len(seen) == 4


@every
def test_several_evaluation_sets_have_a_loss_each(kind: Kind, tmp_path: Path) -> None:
    sets = {"near": kind.data(8), "far": kind.data(4)}
    found = made(kind, tmp_path, given={"eval_dataset": sets}).evaluate()
    assert found["eval_near_loss"] > 0 and found["eval_far_loss"] > 0


@ours
def test_a_batch_without_what_is_read_is_refused(kind: Kind, tmp_path: Path) -> None:
    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in kind.collate(rows).items() if name not in ("labels", "caption_ids")}

    trainer = made(kind, tmp_path, given={"data_collator": collate})
    refused("^the batch has no (labels|caption_ids), only .*: give data_collator=", trainer.train)


# Checkpoints


# Stock Llava's weights have other names in files than in the model, which a stock Trainer does not find again.
@pytest.mark.parametrize("kind", [KINDS[name] for name in KINDS if name != "stock on Llava"])
def test_the_best_checkpoint_is_in_the_users_model_at_the_end(kind: Kind, tmp_path: Path) -> None:
    model = kind.model()
    steps = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 3}
    # The worst one, which a training without this habit does not end with.
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    trainer = made(kind, tmp_path, model, learning_rate=1e-4, **steps, **best)
    trainer.train()
    assert not trainer.state.best_model_checkpoint.endswith("-3")
    kept = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    model.save_pretrained(tmp_path / "user")
    found = load_file(tmp_path / "user" / "model.safetensors")
    assert found.keys() == kept.keys() and all(torch.equal(value, found[name]) for name, value in kept.items())


def test_the_best_checkpoint_brings_its_maps_to_the_teacher(tmp_path: Path) -> None:
    steps = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 3}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    given = {"teacher": pairs.tiny_clip(seed=1)}
    trainer = made(KINDS["ChainTrainer"], tmp_path, pairs.tiny_clip(embedding=16), given, **steps, **best)
    trainer.train()
    assert not trainer.state.best_model_checkpoint.endswith("-3")
    maps = load_file(Path(trainer.state.best_model_checkpoint) / "teacher_maps.safetensors")
    state = trainer.model.state_dict()
    assert maps and all(torch.equal(value, state[name]) for name, value in maps.items())


@ours
def test_a_checkpoint_of_another_model_is_refused(kind: Kind, tmp_path: Path) -> None:
    made(kind, tmp_path, save_strategy="steps", save_steps=2).train()
    checkpoint = str(tmp_path / "checkpoint-2")
    more, fewer = kind.model(), kind.model()
    for model, change in ((more, 1), (fewer, -1)):
        layers = next(module for module in model.modules() if isinstance(module, nn.ModuleList))
        config = next(
            part.config
            for part in model.modules()
            if getattr(getattr(part, "config", None), "num_hidden_layers", None) == len(layers)
            and any(child is layers for child in part.modules())
        )
        config.num_hidden_layers += change
        if change > 0:
            layers.append(copy.deepcopy(layers[0]))
        else:
            del layers[-1]
    resume = {"resume_from_checkpoint": checkpoint}
    refused("^the checkpoint lacks .*more weights", lambda: made(kind, tmp_path, more, max_steps=4).train(**resume))
    refused(
        "^the checkpoint holds, and the model lacks", lambda: made(kind, tmp_path, fewer, max_steps=4).train(**resume)
    )
