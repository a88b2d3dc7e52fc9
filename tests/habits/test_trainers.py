"""Habits of users of `transformers.Trainer`, tried on every trainer of ours and on stock ones beside them.

A habit works, or is refused in one line before work begins; none is passed over. A new public trainer needs a row in
`KINDS` of `support.trainer_kinds` and gets them all.
"""

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
from transformers import CLIPModel

import hf_chain.trainer
from hf_chain.cost import clip_macs
from hf_chain.grafting.translator import TranslatorConfig, TranslatorTrainer
from support import grafts, pairs
from support.trainer_kinds import KINDS, OURS, Kind, changed, every, made, ours, refused, weights


def test_a_translators_trainer_refuses_what_it_would_pass_over(tmp_path: Path) -> None:
    """It takes a target and text besides, so the other habits are not for it."""

    def trainer(**given: Any) -> Callable[[], Any]:
        args = TranslatorConfig(str(tmp_path), use_cpu=True)
        surrogate = given.pop("surrogate", None) or grafts.tiny_decoder()
        return lambda: TranslatorTrainer(surrogate, grafts.tiny_decoder(num_hidden_layers=5), args, [], **given)

    refused("^compute_loss_func is given", trainer(compute_loss_func=max))
    refused("no model_init", trainer(model_init=grafts.tiny_decoder))
    refused("not of the model", trainer(optimizers=(SGD(grafts.tiny_decoder().parameters(), lr=0.1), None)))
    frozen = grafts.tiny_decoder().requires_grad_(False)
    refused("frozen parameters only", trainer(surrogate=frozen, optimizers=(SGD(frozen.parameters(), lr=0.1), None)))


def test_every_public_trainer_has_these_habits() -> None:
    public = {name for name in hf_chain.trainer.__all__ if name.endswith("Trainer")}
    assert public == {kind.trainer.__name__ for kind in KINDS.values() if kind.ours}


# The model


@every
def test_the_users_own_model_is_trained_and_what_is_frozen_is_not(kind: Kind, tmp_path: Path) -> None:
    model = kind.model()
    model.get_submodule(kind.frozen).requires_grad_(False)
    before = weights(model)
    trainer = made(kind, tmp_path, model)
    trainer.train()
    moved = changed(model, before)
    assert moved and not any(name.startswith(f"{kind.frozen}.") for name in moved)
    # Softmax ignores what a key bias adds; stock Llava saw text alone.
    spared = ("k_proj.bias", "projector", "image_start", "image_end")
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name in trainable - moved if not any(word in name for word in spared)} == set()
    shared = {id(parameter) for parameter in trainer.model.parameters()}
    assert all(id(parameter) in shared for parameter in model.parameters())


@every
def test_a_second_training_goes_on_from_the_first(kind: Kind, tmp_path: Path) -> None:
    model = kind.model()
    made(kind, tmp_path, model).train()
    between = weights(model)
    made(kind, tmp_path, model).train()
    assert changed(model, between)


@every
def test_activations_that_the_model_checkpoints_stay_so(kind: Kind, tmp_path: Path) -> None:
    model, plain = kind.model(), kind.model()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    passes = [0, 0]
    for index, each in enumerate((model, plain)):
        for name, module in each.named_modules():
            if name.endswith("mlp.fc1") or name.endswith("mlp.up_proj"):
                module.register_forward_hook(lambda *_, index=index: passes.__setitem__(index, passes[index] + 1))
        made(kind, tmp_path, each, max_steps=1).train()
    # Of frozen layers nothing has to be computed again.
    assert passes[0] > passes[1] > 0
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, plain.get_parameter(name))


@every
def test_the_model_saved_from_the_users_hand_is_the_one_the_trainer_saves(kind: Kind, tmp_path: Path) -> None:
    model = kind.model()
    trainer = made(kind, tmp_path / "run", model)
    trainer.train()
    trainer.save_model(str(tmp_path / "trainer"))
    model.save_pretrained(tmp_path / "user")
    files = [load_file(tmp_path / name / "model.safetensors") for name in ("trainer", "user")]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(value, files[1][name]) for name, value in files[0].items())
    loaded, info = kind.stock.from_pretrained(tmp_path / "trainer", output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@ours
def test_models_that_are_not_trained_as_they_are_get_refused(kind: Kind, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model, inject_adapter_in_model

    lora = LoraConfig(target_modules=["q_proj"])
    refused("PeftModel.* has an adapter", lambda: made(kind, tmp_path, get_peft_model(kind.model(), lora)))
    inside = kind.model()
    inject_adapter_in_model(lora, inside.get_submodule(kind.frozen), "mine")
    refused("has an adapter .*LoraLayer|has an adapter .*Linear", lambda: made(kind, tmp_path, inside))
    tower = kind.model().get_submodule(kind.frozen)
    refused(type(tower).__name__ + "|clip_vision_model", lambda: made(kind, tmp_path, tower))
    for wrapped in (torch.compile(kind.model()), nn.DataParallel(kind.model())):
        refused(f"the model to train is a {type(wrapped).__name__}", lambda w=wrapped: made(kind, tmp_path, w))
    refused("the model to train is a str", lambda: made(kind, tmp_path, "some/model"))


class MoreWeights(CLIPModel):
    """A stock model with a head of the user's own."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.head = nn.Linear(2, 2)
        self.post_init()


class OtherWay(CLIPModel):
    """A stock model that embeds images its own way."""

    def get_image_features(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_image_features(*args, **kwargs)


def test_a_clip_with_more_than_a_clip_is_refused(tmp_path: Path) -> None:
    config, kind = pairs.tiny_clip().config, KINDS["ChainTrainer"]
    refused("^head.bias of the model to train is .2., and .*absent", lambda: made(kind, tmp_path, MoreWeights(config)))
    refused("^OtherWay has its own get_image_features", lambda: made(kind, tmp_path, OtherWay(config)))
    other = pairs.tiny_clip()
    other.text_model.encoder.layers.append(copy.deepcopy(other.text_model.encoder.layers[0]))
    refused("has text_model.encoder.layers.2.*, other than its config", lambda: made(kind, tmp_path, other))


def test_a_model_with_nothing_to_train_is_refused(tmp_path: Path) -> None:
    model = pairs.tiny_clip().requires_grad_(False)
    trainer = made(KINDS["ChainTrainer"], tmp_path, model)
    assert trainer.evaluate()["eval_loss"] > 0
    refused("^every parameter of the model is frozen", trainer.train)


@pytest.mark.parametrize("micro", [None, 4])
@pytest.mark.parametrize("width", [12, 16])
def test_a_locked_tower_stays_locked_with_a_teacher_and_with_accumulation(
    tmp_path: Path, micro: int | None, width: int
) -> None:
    """Locked-image tuning (arXiv 2111.07991)."""
    model = pairs.tiny_clip(embedding=width)
    for part in (model.vision_model, model.visual_projection):
        part.requires_grad_(False)
    before = weights(model)
    pairs.tiny_trainer(tmp_path, pairs.tiny_clip(seed=1), model, micro_batch_size=micro).train()
    moved = changed(model, before)
    assert not any(name.startswith(("vision_model", "visual_projection")) for name in moved)
    assert {"logit_scale", "text_projection.weight"} <= moved


def test_cost_counts_a_locked_tower_and_checkpointed_activations(tmp_path: Path) -> None:
    """A forward and two to go back through what is trained; one more to compute it again."""

    def macs(**settings: Any) -> int:
        model = pairs.tiny_clip()
        model.vision_model.requires_grad_(False)
        if settings.pop("checkpointed", False):
            model.gradient_checkpointing_enable({"use_reentrant": False})
        return pairs.tiny_trainer(tmp_path, model=model, **settings).step_cost(4).student_macs(1)

    towers = clip_macs(pairs.tiny_clip().config)
    assert macs() == 8 * (towers.image + 3 * 2 * towers.text)
    assert macs(micro_batch_size=4) == 8 * (2 * towers.image + 4 * 2 * towers.text)
    assert macs(checkpointed=True) == macs(gradient_checkpointing=True) == 8 * (towers.image + 4 * 2 * towers.text)


def test_cost_of_a_stage_counts_activations_that_the_model_checkpoints(tmp_path: Path) -> None:
    kind, batch = KINDS["GraftTrainer"], grafts.collate([grafts.Chats()[1]])
    model = kind.model()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    asked = made(kind, tmp_path, gradient_checkpointing=True).cost(batch)
    assert made(kind, tmp_path, model).cost(batch) == asked > made(kind, tmp_path).cost(batch)


@pytest.mark.parametrize("name", OURS)
def test_reentrant_checkpoints_behind_frozen_layers_are_refused(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    model = kind.model()
    model.get_submodule(kind.frozen).requires_grad_(False)
    model.gradient_checkpointing_enable({"use_reentrant": True})
    refused("^the model checkpoints with use_reentrant", lambda: made(kind, tmp_path, model))
