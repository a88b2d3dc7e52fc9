"""Language models train as the stock loss says, whatever the batch is cut into, and learn from a frozen teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import kl_div, log_softmax
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, CLIPTextConfig, CLIPTextModel

from hf_chain.data import PackedTextStream, TextSettings, load_splits, train_text_tokenizer
from hf_chain.errors import HfChainError
from hf_chain.losses import language, next_token_losses, token_divergences
from hf_chain.trainer import ChainConfig
from support.language_models import BATCH, LENGTH, VOCABULARY, language_trainer, tiny_language_model, token_rows
from support.trainer_kinds import changed, weights

DECODERS = {"llama": {}, "gpt2": {}, "tied llama": {"tie_word_embeddings": True}}


def decoder(name: str, seed: int = 0, **fields: Any) -> Any:
    return tiny_language_model(name.split()[-1], seed, **(DECODERS[name] | fields))


def logs(trained: Any, name: str) -> list[float]:
    return [entry[name] for entry in trained.state.log_history if name in entry]


@pytest.mark.parametrize("name", DECODERS)
def test_every_weight_is_trained_and_the_teacher_is_not(name: str, tmp_path: Path) -> None:
    model, teacher = decoder(name), decoder("llama", 1)
    before, taught = weights(model), weights(teacher)
    trained = language_trainer(tmp_path, model, teacher)
    assert trained.model is model and trained.args.feature_loss_weight == 1.0
    trained.train()
    assert changed(model, before) == before.keys() and not changed(teacher, taught)
    parts = zip(logs(trained, "causal_lm_loss"), logs(trained, "feature_loss"), strict=True)
    assert logs(trained, "loss") == pytest.approx([loss + distance for loss, distance in parts], rel=1e-5)
    assert logs(trained, "tokens_per_second") and not logs(trained, "images_per_second")
    trained.save_model(str(tmp_path / "end"))
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "end")
    tied = saved.get_input_embeddings().weight is saved.get_output_embeddings().weight
    assert tied == (name != "llama")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in saved.state_dict().items())


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("part", [1, language.PART])
def test_the_loss_is_that_of_transformers(
    name: str, part: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language, "PART", part)
    model, ids = decoder(name), torch.stack([row["input_ids"] for row in token_rows(6)])
    expected = model(input_ids=ids, labels=ids).loss
    expected.backward()
    gradients = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    losses = next_token_losses(model(input_ids=ids).logits, ids)
    losses.mean().backward()
    assert losses.shape == (6, LENGTH - 1) and losses.mean().item() == pytest.approx(expected.item(), rel=1e-6)
    for key, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, gradients[key], rtol=1e-4, atol=1e-7), key
    trainer = language_trainer(tmp_path, model)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("words", [5, 8])
def test_a_student_may_know_more_words_than_its_teacher(words: int) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(2, 3, 8, generator=generator, requires_grad=True)
    theirs = torch.randn(2, 3, words, generator=generator)
    found = token_divergences(ours, theirs)
    pair = log_softmax(ours[..., :words], -1), log_softmax(theirs, -1)
    expected = kl_div(*pair, reduction="none", log_target=True).sum(-1)
    assert torch.allclose(found, expected, atol=1e-6)
    (gradient,) = torch.autograd.grad(found.square().sum(), ours)
    (wanted,) = torch.autograd.grad(expected.square().sum(), ours)
    assert torch.allclose(gradient, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "cut",
    [
        {"micro_batch_size": 2},
        {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "micro_batch_size": 1},
    ],
)
def test_however_a_batch_is_cut_the_training_is_the_same(cut: dict[str, int], tmp_path: Path) -> None:
    def trained(folder: str, **settings: Any) -> Any:
        trainer = language_trainer(tmp_path / folder, decoder("tied llama").double(), **settings)
        trainer.train()
        return trainer

    whole, small = trained("whole"), trained("small", **cut)
    assert logs(small, "loss") == pytest.approx(logs(whole, "loss"), rel=1e-4)
    assert logs(small, "macs") == logs(whole, "macs")
    for key, value in whole.model.state_dict().items():
        assert torch.allclose(small.model.state_dict()[key], value, rtol=0, atol=1e-11), key


def test_a_batch_that_is_cut_meets_the_teacher_once(tmp_path: Path) -> None:
    whole = language_trainer(tmp_path / "whole", decoder("gpt2"), decoder("llama", 1))
    small = language_trainer(tmp_path / "small", decoder("gpt2"), decoder("llama", 1), micro_batch_size=2)
    forwards: list[int] = []
    for module in (small.model, small.teacher.model):  # type: ignore[union-attr]
        module.register_forward_hook(lambda *_: forwards.append(1))
    whole.train()
    small.train()
    assert logs(small, "feature_loss") == pytest.approx(logs(whole, "feature_loss"), rel=1e-4)
    assert len(forwards) == 2 * 4 * BATCH // 2


def test_a_training_that_is_resumed_goes_on_as_it_would(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 2, "lr_scheduler_type": "cosine", "feature_loss_until": 0.7}
    whole = language_trainer(tmp_path, decoder("tied llama"), decoder("llama", 1), **settings)
    whole.train()
    resumed = language_trainer(tmp_path, decoder("tied llama", 3), decoder("llama", 1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert logs(resumed, "loss") == logs(whole, "loss") and len(logs(whole, "feature_loss")) == 3
    assert not changed(resumed.model, weights(whole.model))


@pytest.mark.parametrize("name", DECODERS)
def test_the_cost_is_what_torch_counts(name: str, tmp_path: Path) -> None:
    model, teacher = decoder(name, attn_implementation="eager"), decoder("gpt2", 1, attn_implementation="eager")
    trainer = language_trainer(tmp_path, model, teacher, feature_loss_until=0.5, gradient_accumulation_steps=2)
    cost = trainer.step_cost(4)
    batch = {"input_ids": torch.stack([row["input_ids"] for row in token_rows(BATCH)])}
    with FlopCounterMode(display=False) as counter:
        trainer.teacher.features(batch)  # type: ignore[union-attr]
    # Two batches a step.
    assert 4 * counter.get_total_flops() == pytest.approx(2 * cost.teacher_macs(4), rel=0.01)
    with FlopCounterMode(display=False) as counter:
        next_token_losses(model(**batch).logits, batch["input_ids"]).mean().backward()
    assert 2 * counter.get_total_flops() == pytest.approx(2 * cost.student_macs(1), rel=0.01)
    model.get_input_embeddings().requires_grad_(False)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(".1." in key)
    with FlopCounterMode(display=False) as counter:
        next_token_losses(model(**batch).logits, batch["input_ids"]).mean().backward()
    assert 2 * counter.get_total_flops() == pytest.approx(2 * trainer.step_cost(4).student_macs(1), rel=0.1)


def test_a_training_on_a_stream_goes_on_as_it_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `datasets` waits at the end of a stream.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    texts = [f"Chapter {number}: the {'old ' * (number % 5)}ship sailed north." for number in range(40)]
    for file in range(4):
        Dataset.from_dict({"text": texts[file::4]}).to_json(tmp_path / f"{file}.jsonl")
    source = TextSettings(source=str(tmp_path / "*.jsonl"), streaming=True, row_tokens=LENGTH, validation_split=None)
    tokenizer = train_text_tokenizer(texts, 300)

    def trained(again: bool) -> Any:
        # Not dispatched by one process: each reads its lanes.
        settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5, "max_steps": 8}
        settings["accelerator_config"] = {"dispatch_batches": False}
        trainer = language_trainer(tmp_path / "run", decoder("gpt2", vocab_size=300), **settings)
        trainer.train_dataset = PackedTextStream(load_splits(source)["train"], source, tokenizer)
        trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5") if again else None)
        return trainer

    whole, resumed = trained(again=False), trained(again=True)
    assert logs(whole, "loss")[-1] < logs(whole, "loss")[0] and logs(whole, "tokens_per_second")
    assert not changed(resumed.model, weights(whole.model))


def test_metrics_get_the_loss_of_every_row(tmp_path: Path) -> None:
    trainer = language_trainer(tmp_path, decoder("gpt2"))
    trainer.compute_metrics = lambda found: {"worst": found.predictions[0].max(), "rows": len(found.label_ids)}
    found = trainer.evaluate()
    assert found["eval_rows"] == 6 and found["eval_worst"] > found["eval_loss"]


def test_what_cannot_be_trained_is_refused_by_name(tmp_path: Path) -> None:
    clip = CLIPTextModel(CLIPTextConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, vocab_size=9))
    with pytest.raises(HfChainError, match="^the model is a CLIPTextModel, no language model of a known family"):
        language_trainer(tmp_path, clip)
    with pytest.raises(HfChainError, match="^the teacher is a CLIPTextModel"):
        language_trainer(tmp_path, teacher=clip)
    with pytest.raises(HfChainError, match=f"^the teacher has vocab_size=49 and the model {VOCABULARY}"):
        language_trainer(tmp_path, teacher=decoder("llama", vocab_size=49))
    with pytest.raises(HfChainError, match="^the teacher has eos_token_id=3 and the model 0"):
        language_trainer(tmp_path, teacher=decoder("llama", eos_token_id=3))
    with pytest.raises(HfChainError, match="^rows have 12 tokens, and the teacher has max_position_embeddings=8"):
        language_trainer(tmp_path, teacher=decoder("gpt2", max_position_embeddings=8)).train()
    padded = language_trainer(tmp_path)
    padded.train_dataset = [row | {"attention_mask": torch.arange(LENGTH) > 0} for row in token_rows()]
    with pytest.raises(HfChainError, match="^a row has padding, which would count as text"):
        padded.train()
    for field, value in {"image_token_keep": 0.5, "train_sampling_strategy": "group_by_length"}.items():
        with pytest.raises(HfChainError, match=f"^{field}"):
            ChainConfig(str(tmp_path), use_cpu=True, task="causal_lm", **{field: value})  # type: ignore[arg-type]
