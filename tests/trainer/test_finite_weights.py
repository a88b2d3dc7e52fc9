"""Weights that are not finite are in no checkpoint and in no saved model; the run says which one, and when."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file, save_file

from hf_chain.errors import HfChainError
from hf_chain.models import ChainCLIPModel
from hf_chain.trainer.lora import attach_lora, load_lora, merge_lora, save_lora
from hf_chain.trainer.trainable_files import load_trainable
from support.grafts import tiny_graft_trainer, tiny_vlm
from support.pairs import tiny_clip, tiny_trainer


def infinite_gradient_at(trainer: Any, parameter: str, step: int) -> None:
    """The gradient of one parameter is infinite at one step; the loss never is."""

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        return torch.full_like(gradient, math.inf) if trainer.state.global_step == step else gradient

    trainer.model.get_parameter(parameter).register_hook(hook)


TRAINERS = {
    "chain": (lambda folder, **settings: tiny_trainer(folder, **settings), "visual_projection.weight"),
    "graft": (lambda folder, **settings: tiny_graft_trainer(folder, **settings), "adapter.0.weight"),
}


@pytest.fixture(params=TRAINERS)
def kind(request: pytest.FixtureRequest) -> Any:
    return TRAINERS[request.param]


def refused(call: Any, message: str) -> None:
    with pytest.raises(HfChainError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_infinite_gradient_in_the_last_step_gets_into_no_saved_model(kind: Any, tmp_path: Path) -> None:
    make, parameter = kind
    trainer = make(tmp_path, max_steps=3)
    infinite_gradient_at(trainer, parameter, step=2)
    trainer.train()
    refused(lambda: trainer.save_model(str(tmp_path / "final")), r"\S+ holds NaN or infinity at step 3, so nothing")
    assert not (tmp_path / "final").exists()


def test_it_gets_into_no_checkpoint_and_those_before_it_stay(kind: Any, tmp_path: Path) -> None:
    make, parameter = kind
    trainer = make(tmp_path, max_steps=3, save_strategy="steps", save_steps=1)
    infinite_gradient_at(trainer, parameter, step=2)
    refused(trainer.train, r"holds NaN or infinity at step 3, so nothing is saved: lower the learning rate")
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]


def test_moments_of_the_optimizer_that_overflow_are_found(kind: Any, tmp_path: Path) -> None:
    make, parameter = kind
    trainer = make(tmp_path, max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "whole"))
    # With an infinite second moment the weight would never move again, and stay finite.
    trainer.optimizer.state[trainer.model.get_parameter(parameter)]["exp_avg_sq"].view(-1)[0] = math.inf
    refused(lambda: trainer.save_model(str(tmp_path / "final")), f"what the optimizer keeps for {parameter} holds NaN")


def test_a_model_and_a_teacher_that_are_not_finite_are_not_trained_with(tmp_path: Path) -> None:
    broken = tiny_clip(seed=1)
    broken.logit_scale.data.fill_(math.nan)
    refused(lambda: tiny_trainer(tmp_path, model=broken).train(), "logit_scale of the model to train holds NaN")
    refused(lambda: tiny_trainer(tmp_path, broken), "logit_scale of the teacher holds NaN")
    vlm = tiny_vlm()
    vlm.language_model.model.norm.weight.data[0] = math.inf
    refused(
        lambda: tiny_graft_trainer(tmp_path, vlm).train(),
        "language_model.model.norm.weight of the model to train holds NaN",
    )


# What is read and made beside whole models


def break_file(path: Path) -> None:
    tensors = load_file(path)
    next(iter(tensors.values())).view(-1)[0] = math.nan
    save_file(tensors, path)


def test_trained_parts_adapters_and_teacher_maps_that_are_not_finite_are_not_loaded(tmp_path: Path) -> None:
    tiny_graft_trainer(tmp_path, max_steps=1).save_model(str(tmp_path / "parts"))
    break_file(tmp_path / "parts" / "trainable.safetensors")
    refused(lambda: load_trainable(tiny_vlm(), tmp_path / "parts"), "trainable.safetensors holds NaN or infinity")

    decoder = tiny_vlm().language_model
    attach_lora(decoder)
    save_lora(decoder, tmp_path / "lora")
    break_file(tmp_path / "lora" / "adapter_model.safetensors")
    refused(lambda: load_lora(decoder, tmp_path / "lora"), "of the adapter in .*lora holds NaN or infinity")

    member = ChainCLIPModel.from_clip(tiny_clip(), 20)
    member.save_pretrained(tmp_path / "member")
    assert ChainCLIPModel.from_pretrained(tmp_path / "member").image_to_teacher is not None
    break_file(tmp_path / "member" / "teacher_maps.safetensors")
    refused(lambda: ChainCLIPModel.from_pretrained(tmp_path / "member"), "_to_teacher.weight in .* holds NaN")
    (tmp_path / "member" / "teacher_maps.safetensors").unlink()
    refused(lambda: member.load_teacher_maps(tmp_path / "member"), "does not hold the model's maps to its teacher")


def test_an_adapter_that_makes_a_weight_infinite_is_not_merged() -> None:
    decoder = tiny_vlm().language_model.half()
    attach_lora(decoder)
    for name, weight in decoder.named_parameters():
        if ".lora_" in name:
            weight.data.fill_(200.0)
    refused(lambda: merge_lora(decoder), r"layers\.0\.\S+ with its adapter holds NaN or infinity: train it again")


@pytest.mark.parametrize("place", ["vision_tower", "language_model"])
def test_adapters_that_would_not_be_saved_are_refused(tmp_path: Path, place: str) -> None:
    model = tiny_vlm()
    name = "default" if place == "vision_tower" else "mine"
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"]), getattr(model, place), name)
    refused(lambda: tiny_graft_trainer(tmp_path, model), rf"{place}\.\S+ has an adapter .* that would not be saved")
