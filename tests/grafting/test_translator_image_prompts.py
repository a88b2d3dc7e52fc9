"""Image prompts are what a decoder gets from a vision-language model, and a translator can be fitted on them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hf_chain.data.chat import ChatCollator
from hf_chain.errors import HfChainError
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.trajectory import measure_trajectory
from hf_chain.grafting.translator import (
    ImagePrompts,
    TranslatorConfig,
    closed_form,
    fit_translator,
    refitted_weights,
    splice_error,
)
from hf_chain.models.grafted_vlm import from_parts
from support.chat_models import chat_tokenizer, tiny_language_model
from support.grafted_parts import image_processor, tiny_tower
from support.translators import changed_weights, weights_of

COLOURS = ("red", "green", "blue", "white")


def rows(count: int, shown: bool = True) -> list[dict[str, Any]]:
    """Conversations, every other one about an image."""
    made = []
    for number in range(count):
        image = shown and number % 2 == 0
        question = ("<image>\n" if image else "") + f"what is number {number}?"
        answer = " ".join(["it is"] * (1 + number % 3) + [str(number)])
        talk = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        pictures = [Image.new("RGB", (16, 16), COLOURS[number % 4])] if image else []
        made.append({"messages": talk, "images": pictures})
    return made


def model_on_a_surrogate() -> tuple[Any, Any, Any]:
    """A target of six layers, a vision-language model on its surrogate, and the processor."""
    target = tiny_language_model(num_hidden_layers=6, initializer_range=0.2)
    model, processor = from_parts(tiny_tower(), build_surrogate(target, "1-4"), chat_tokenizer(), image_processor())
    return target, model, processor


def test_what_makes_no_prompts_is_refused() -> None:
    _, model, processor = model_on_a_surrogate()
    with pytest.raises(HfChainError, match="a collator that packs does not fit image prompts"):
        ImagePrompts(model, rows(4), ChatCollator(processor, packing=True))
    with pytest.raises(HfChainError, match="batch_size=0: give at least one"):
        ImagePrompts(model, rows(4), ChatCollator(processor), batch_size=0)


def test_a_prompt_is_what_the_decoder_gets() -> None:
    _, model, processor = model_on_a_surrogate()
    collator = ChatCollator(processor)
    (prompt,) = ImagePrompts(model, rows(4), collator)
    batch = collator(rows(4))
    batch.pop("labels")
    with torch.no_grad():
        expected, found = model(**batch).logits, model.language_model(**prompt).logits
    torch.testing.assert_close(found, expected)
    assert measure_trajectory(model.language_model, [prompt]).samples == 4


def test_a_last_batch_may_be_shorter_and_every_pass_is_the_same() -> None:
    _, model, processor = model_on_a_surrogate()
    prompts = ImagePrompts(model, rows(5), ChatCollator(processor), batch_size=2)
    first, second = list(prompts), list(prompts)
    assert [len(batch["inputs_embeds"]) for batch in first] == [2, 2, 1]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["inputs_embeds"], other["inputs_embeds"])


def test_an_offloaded_image_half_is_refused(tmp_path: Path) -> None:
    _, model, processor = model_on_a_surrogate()
    model.save_pretrained(tmp_path / "model")
    away = type(model).from_pretrained(
        tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "offloaded"
    )
    with pytest.raises(HfChainError, match="the image half is offloaded: put it on a device"):
        ImagePrompts(away, rows(5), ChatCollator(processor))


def test_fitting_on_images_helps_where_images_are() -> None:
    """Fitted on text alone, a translator is worse on image prompts than fitted on both."""
    target, model, processor = model_on_a_surrogate()
    held_out = ImagePrompts(model, rows(60)[40:], ChatCollator(processor))
    errors = {}
    for name, shown in (("text", False), ("images", True)):
        other = copy.deepcopy(model)
        prompts = ImagePrompts(model, rows(40, shown), ChatCollator(processor))
        (fit,) = closed_form(other.language_model, target, prompts)
        errors[name] = splice_error(other.language_model, target, held_out)[0]
        changed = {
            name
            for (name, now), before in zip(other.named_parameters(), model.parameters(), strict=True)
            if not torch.equal(now, before)
        }
        assert changed == {f"language_model.model.layers.1.{kind}.weight" for kind in fit.refitted}
        assert 1 <= len(changed) <= len(refitted_weights(other.language_model)) == 2
    assert errors["images"] < 0.8 * errors["text"]


@pytest.mark.parametrize("objective", ["hidden", "logits", "lm"])
def test_training_on_images_lowers_its_loss_and_moves_the_translator_alone(objective: str, tmp_path: Path) -> None:
    target, model, processor = model_on_a_surrogate()
    prompts = ImagePrompts(model, rows(40), ChatCollator(processor))
    before, target_before = weights_of(model), weights_of(target)
    error, args = splice_error(model.language_model, target, prompts)[0], {"use_cpu": True, "disable_tqdm": True}
    config = TranslatorConfig(output_dir=str(tmp_path), num_train_epochs=20, learning_rate=3e-3, **args)
    report = fit_translator(model.language_model, target, prompts, f"train:{objective}", held_out=prompts, args=config)
    (training,) = report.trainings
    assert training.loss_after < 0.9 * training.loss_before
    assert report.quality is not None and report.quality.perplexity > 1
    assert objective == "lm" or splice_error(model.language_model, target, prompts)[0] < error
    translator = {name for name in before if name.startswith("language_model.model.layers.1.")}
    assert translator and changed_weights(model, before) == translator
    assert not changed_weights(target, target_before)
