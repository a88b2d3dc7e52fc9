"""Trainers with what a user would give each, for tests of the habits of users; stock ones stand beside ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    CLIPModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from hf_chain.errors import HfChainError
from hf_chain.models.grafted_vlm import GraftedVLMForConditionalGeneration
from hf_chain.trainer import ChainConfig, ChainTrainer, GraftConfig, GraftTrainer
from support import grafts, pairs


def _llava() -> PreTrainedModel:
    config = LlavaConfig(
        vision_config=dict(grafts.VISION),
        text_config=dict(grafts.TEXT),
        image_token_index=grafts.IMAGE_TOKEN,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlavaForConditionalGeneration(config)


def _collate_clip(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What stock CLIP takes: one caption an image."""
    batch = pairs.collate(rows)
    return {
        "pixel_values": batch["pixel_values"],
        "input_ids": batch["input_ids"][:, 0],
        "attention_mask": batch["attention_mask"][:, 0],
        "return_loss": True,
    }


def _text_alone(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return grafts.collate([grafts.Chats(16, set())[row % 16] for row in range(len(rows))])


@dataclass(frozen=True)
class Kind:
    """A trainer and what a user would give it.

    Attributes:
        trainer: the class.
        config: the class of its arguments.
        model: makes the user's model.
        stock: class that a saved folder loads with.
        settings: fields of the arguments.
        data: rows to train on.
        collate: makes batches of them.
        frozen: module that the user freezes.
        tower: a vision tower, which is no such model.
    """

    trainer: type[Trainer]
    config: Callable[..., TrainingArguments]
    model: Callable[[], PreTrainedModel]
    stock: type[PreTrainedModel]
    settings: dict[str, Any]
    data: Callable[[int], Any]
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]
    frozen: str

    @property
    def ours(self) -> bool:
        return self.trainer.__module__.startswith("hf_chain.")


_PARTS = {"parts": ["adapter", "decoder"], "bf16": False, "warmup_steps": 0, "lr_scheduler_type": "constant"}
KINDS = {
    "ChainTrainer": Kind(
        ChainTrainer, ChainConfig, pairs.tiny_clip, CLIPModel, {}, pairs.RandomPairs, pairs.collate, "vision_model"
    ),
    "GraftTrainer": Kind(
        GraftTrainer,
        GraftConfig,
        grafts.tiny_vlm_on_a_target,
        GraftedVLMForConditionalGeneration,
        _PARTS,
        grafts.Chats,
        grafts.collate,
        "vision_tower",
    ),
    "stock on CLIP": Kind(
        Trainer, TrainingArguments, pairs.tiny_clip, CLIPModel, {}, pairs.RandomPairs, _collate_clip, "vision_model"
    ),
    "stock on Llava": Kind(
        Trainer,
        TrainingArguments,
        _llava,
        LlavaForConditionalGeneration,
        {},
        grafts.Chats,
        _text_alone,
        "model.vision_tower",
    ),
}
"""Our trainers and, as controls, stock ones on the models that ours are like."""
OURS = [name for name, kind in KINDS.items() if kind.ours]
every = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
ours = pytest.mark.parametrize("kind", [KINDS[name] for name in OURS], ids=OURS)


def made(kind: Kind, folder: Path, model: Any = None, given: dict[str, Any] | None = None, **settings: Any) -> Any:
    """The trainer as a user makes it: batches of 8, on the CPU."""
    values = {"per_device_train_batch_size": 8, "max_steps": 2, "learning_rate": 1e-2, "logging_steps": 1, "seed": 0}
    values |= {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "remove_unused_columns": False}
    args = kind.config(output_dir=str(folder), **(values | kind.settings | settings))
    data = {"train_dataset": kind.data(16), "eval_dataset": kind.data(8), "data_collator": kind.collate}
    return kind.trainer(model=kind.model() if model is None else model, args=args, **(data | (given or {})))


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def changed(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    """Names of the parameters that are no longer as they were."""
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def refused(words: str, action: Callable[[], Any]) -> None:
    """Asserts that `action` ends with one line that has these words."""
    with pytest.raises(HfChainError, match=words) as error:
        action()
    assert "\n" not in str(error.value)
