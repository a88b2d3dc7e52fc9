"""What may be trained of a surrogate's language model, and what its lineage then says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from hf_chain.errors import HfChainError
from hf_chain.grafting.lineage import read_lineage
from hf_chain.trainer.lora import attach_lora, merge_lora
from support.decoders import tiny_decoder
from support.grafts import tiny_graft_trainer, tiny_vlm, weights

KEPT, TRANSLATOR = ("model.layers.0.", "model.layers.2."), "model.layers.1."
"""Layers 0 and 4 of the target, and the one that stands in for 1 to 3."""


def test_lora_teaches_all_kept_layers_and_no_translator(tmp_path: Path) -> None:
    model = tiny_vlm()
    before = weights(model.language_model)
    trainer = tiny_graft_trainer(tmp_path, model, parts={"lora": 1e-2, "adapter": 1e-3}, lora={"r": 2})
    taught = {name for name, parameter in model.language_model.named_parameters() if parameter.requires_grad}
    assert {name[: len(TRANSLATOR)] for name in taught} == set(KEPT)
    trainer.train()
    assert read_lineage(model.config).trained_layers == (), "until it is merged, the weights are the target's"
    merge_lora(model.language_model)
    assert read_lineage(model.config).trained_layers == (0, 4)
    changed = {name for name, value in model.language_model.named_parameters() if not torch.equal(value, before[name])}
    assert {name[: len(TRANSLATOR)] for name in changed} == set(KEPT)
    model.save_pretrained(tmp_path / "saved")
    assert read_lineage(AutoConfig.from_pretrained(tmp_path / "saved")).trained_layers == (0, 4)


def test_layers_trained_in_full_are_noted_and_added_up(tmp_path: Path) -> None:
    model = tiny_vlm()
    for layers, noted in (("language_model.model.layers.2", (4,)), ("language_model.*.layers.[01].*", (0, 4))):
        tiny_graft_trainer(tmp_path, model, parts=["adapter", layers])
        assert read_lineage(model.config).trained_layers == noted


def test_frozen_layers_and_translators_are_not_noted(tmp_path: Path) -> None:
    model = tiny_vlm()
    tiny_graft_trainer(tmp_path, model, parts=["adapter", "translator", "encoder.last:1"])
    assert read_lineage(model.config).trained_layers == ()


@pytest.mark.parametrize("part", ["decoder", "language_model.lm_head", "language_model.model.norm"])
def test_what_a_graft_would_leave_behind_is_refused(part: str, tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="of the surrogate would be trained, and a graft leaves it behind"):
        tiny_graft_trainer(tmp_path, parts=["adapter", part])


def test_lora_on_the_head_of_a_surrogate_is_refused() -> None:
    with pytest.raises(HfChainError, match="lm_head of the surrogate would be trained"):
        attach_lora(tiny_vlm().language_model, {"target_modules": ["q_proj", "lm_head"]})


def test_other_models_may_be_trained_whole() -> None:
    decoder = tiny_decoder("llama")
    attach_lora(decoder, {"target_modules": ["q_proj", "lm_head"]})
    merge_lora(decoder)
