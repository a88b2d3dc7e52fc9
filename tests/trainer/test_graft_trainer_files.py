"""What a stage writes: checkpoints to resume from, stock models, trainable-only files, adapters for peft."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from hf_chain.errors import HfChainError
from hf_chain.trainer.lora import attach_lora, merge_lora
from hf_chain.trainer.trainable_files import load_trainable
from support.grafts import Chats, collate, losses, tiny_decoder, tiny_graft_trainer, tiny_vlm, weights

ENCODER = {"adapter": 1e-2, "encoder.last:2": 1e-3}
LORA = {"lora": 1e-2, "adapter": 1e-3}
LORA_SETTINGS = {"lora": {"r": 2, "lora_dropout": 0.1}}
SAVING = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}


def logits(model: torch.nn.Module) -> torch.Tensor:
    batch = collate([Chats()[row] for row in range(4)])
    with torch.no_grad():
        return model.eval()(**{name: value for name, value in batch.items() if name != "labels"}).logits


@pytest.mark.parametrize("parts", [ENCODER, LORA])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, parts: dict[str, float]) -> None:
    settings: dict[str, Any] = SAVING | LORA_SETTINGS | {"lr_scheduler_type": "cosine", "warmup_steps": 0.2}
    settings["gradient_accumulation_steps"] = 2
    whole = tiny_graft_trainer(tmp_path, parts=parts, **settings)
    whole.train()
    resumed = tiny_graft_trainer(tmp_path, parts=parts, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert losses(resumed) == losses(whole)
    end = weights(whole.model)
    assert all(torch.equal(parameter, end[name]) for name, parameter in resumed.model.named_parameters())
    assert resumed.state.log_history[-2]["macs"] == whole.state.log_history[-2]["macs"] > 0


@pytest.mark.parametrize("order", ["random", "group_by_length"])
def test_a_training_resumed_in_its_second_epoch_goes_on_in_its_order(tmp_path: Path, order: str) -> None:
    settings: dict[str, Any] = {"train_sampling_strategy": order, "max_steps": 8, "save_strategy": "steps"}
    settings |= {"save_steps": 6, "train_dataset": [Chats()[row] for row in range(16)]}
    whole = tiny_graft_trainer(tmp_path, **settings)
    whole.train()
    resumed = tiny_graft_trainer(tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert losses(resumed) == losses(whole)
    assert len(set(losses(whole)[:4]) & set(losses(whole)[4:])) == 0


def test_checkpoints_and_saved_folders_load_as_the_stock_model(tmp_path: Path) -> None:
    trainer = tiny_graft_trainer(tmp_path, parts=ENCODER, **SAVING)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "final", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert torch.equal(logits(loaded), logits(trainer.model))
    assert not (tmp_path / "checkpoint-3" / "trainable.safetensors").exists()
    assert (tmp_path / "checkpoint-6" / "optimizer.pt").is_file()


def test_trainable_files_move_a_stage_to_another_decoder(tmp_path: Path) -> None:
    """What a graft is: the trained half on top of a decoder it was not trained with."""
    trainer = tiny_graft_trainer(tmp_path, parts=ENCODER, stage="encoder")
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    target = tiny_vlm(seed=1, text={"num_hidden_layers": 4})
    before = weights(target)
    index = load_trainable(target, tmp_path / "final")
    assert index["stage"] == "encoder"
    assert [(part["name"], part["learning_rate"]) for part in index["parts"]] == list(ENCODER.items())
    trained = {name for part in index["parts"] for name in part["parameters"]}
    assert trained == {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    source = weights(trainer.model)
    for name, parameter in target.named_parameters():
        assert torch.equal(parameter, source[name] if name in trained else before[name])


def test_trainable_files_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    trainer = tiny_graft_trainer(tmp_path, parts=["adapter"], max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    cases = [
        (tiny_decoder(), "final", "holds adapter.0.bias, which LlamaForCausalLM lacks: another model"),
        (
            tiny_vlm(text={"hidden_size": 32}),
            "final",
            r"adapter.0.bias is \(24,\) in .* and \(32,\) in the model: build",
        ),
        (tiny_vlm(), "nowhere", "has no whole trainable.safetensors and trainable.json: .*; save them again"),
    ]
    for model, folder, message in cases:
        with pytest.raises(HfChainError, match=message) as error:
            load_trainable(model, tmp_path / folder)
        assert "\n" not in str(error.value)
    whole = (tmp_path / "final" / "trainable.safetensors").read_bytes()
    (tmp_path / "final" / "trainable.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HfChainError, match="has no whole trainable.safetensors"):
        load_trainable(tiny_vlm(), tmp_path / "final")


def test_the_best_checkpoint_is_loaded_with_its_adapter(tmp_path: Path) -> None:
    # The highest loss counts as the best here, as that is not the last one.
    best = {"eval_strategy": "steps", "eval_steps": 3, "load_best_model_at_end": True, "greater_is_better": True}
    trainer = tiny_graft_trainer(tmp_path, parts=["lora", "adapter"], eval_dataset=Chats(4), **SAVING | best)
    trainer.train()
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-3")
    stock = AutoModelForImageTextToText.from_pretrained(trainer.state.best_model_checkpoint)
    stock.language_model = PeftModel.from_pretrained(
        stock.language_model, f"{trainer.state.best_model_checkpoint}/lora"
    )
    torch.testing.assert_close(logits(stock), logits(trainer.model))


# LoRA


@pytest.fixture(scope="module")
def with_lora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A trainer that has trained LoRA and an adapter, and what it saved."""
    folder = tmp_path_factory.mktemp("lora")
    trainer = tiny_graft_trainer(folder, parts=LORA, lora={"r": 2}, **SAVING)
    trainer.train()
    trainer.save_model(str(folder / "final"))
    return trainer, folder


@pytest.mark.parametrize("saved", ["final", "checkpoint-6"])
def test_a_saved_adapter_loads_with_peft(with_lora: tuple[Any, Path], saved: str) -> None:
    trainer, folder = with_lora
    loaded, info = AutoModelForImageTextToText.from_pretrained(folder / saved, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    stock = tiny_vlm()
    assert all(
        torch.equal(p, stock.get_parameter(n)) for n, p in loaded.language_model.named_parameters("language_model")
    )
    trained = logits(trainer.model)
    assert not torch.allclose(logits(loaded), trained)
    loaded.language_model = PeftModel.from_pretrained(loaded.language_model, folder / saved / "lora")
    torch.testing.assert_close(logits(loaded), trained)


def test_an_adapter_is_merged_once_and_into_its_decoder(with_lora: tuple[Any, Path]) -> None:
    model = copy.deepcopy(with_lora[0].model)
    with pytest.raises(
        HfChainError, match="this GraftedVLM[A-Za-z]* has no adapter to merge: give the decoder itself"
    ):
        merge_lora(model)
    merge_lora(model.language_model)
    with pytest.raises(HfChainError, match="this LlamaForCausalLM has no adapter to merge"):
        merge_lora(model.language_model)


def test_an_adapter_merges_into_a_stock_model(with_lora: tuple[Any, Path], tmp_path: Path) -> None:
    trainer, _ = with_lora
    merged = copy.deepcopy(trainer.model)
    merge_lora(merged.language_model)
    assert set(merged.state_dict()) == set(tiny_vlm().state_dict())
    torch.testing.assert_close(logits(merged), logits(trainer.model), rtol=1e-4, atol=1e-5)
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForImageTextToText.from_pretrained(tmp_path)), logits(merged))


def test_trainable_files_bring_their_adapter(with_lora: tuple[Any, Path]) -> None:
    trainer, folder = with_lora
    fresh = tiny_vlm()
    load_trainable(fresh, folder / "final")
    assert torch.equal(logits(fresh), logits(trainer.model))
    smaller = tiny_vlm()
    attach_lora(smaller.language_model, {"r": 4})
    with pytest.raises(HfChainError, match="the adapter in .*lora does not fit: .*size mismatch"):
        load_trainable(smaller, folder / "final")


def test_a_plain_decoder_with_lora_is_saved_as_itself(tmp_path: Path) -> None:
    settings = {"train_dataset": Chats(8, set()), "lora": {"r": 2}, "max_steps": 2}
    trainer = tiny_graft_trainer(tmp_path, tiny_decoder(), parts=["lora"], **settings)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    tokens = {"input_ids": torch.arange(1, 9)[None]}
    expected = trainer.model.eval()(**tokens).logits
    adapter = json.loads((tmp_path / "final" / "lora" / "adapter_config.json").read_text())
    assert adapter["r"] == 2 and adapter["task_type"] == "CAUSAL_LM"
    torch.testing.assert_close(
        PeftModel.from_pretrained(loaded, tmp_path / "final" / "lora")(**tokens).logits, expected
    )
