"""Image prompts are what a decoder gets from a vision-language model, and a translator can be fitted on them."""

from __future__ import annotations

import copy
from typing import Any

import torch
from PIL import Image

from hf_chain.data.chat import ChatCollator
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.translator import ImagePrompts, closed_form, refitted_weights, splice_error
from hf_chain.models.grafted_vlm import from_parts
from support.chat_models import chat_tokenizer, tiny_language_model
from support.grafted_parts import image_processor, tiny_tower

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


def test_a_prompt_is_what_the_decoder_gets() -> None:
    _, model, processor = model_on_a_surrogate()
    collator = ChatCollator(processor)
    (prompt,) = ImagePrompts(model, rows(4), collator)
    batch = collator(rows(4))
    batch.pop("labels")
    with torch.no_grad():
        expected, found = model(**batch).logits, model.language_model(**prompt).logits
    torch.testing.assert_close(found, expected)


def test_a_last_batch_may_be_shorter_and_every_pass_is_the_same() -> None:
    _, model, processor = model_on_a_surrogate()
    prompts = ImagePrompts(model, rows(5), ChatCollator(processor), batch_size=2)
    first, second = list(prompts), list(prompts)
    assert [len(batch["inputs_embeds"]) for batch in first] == [2, 2, 1]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["inputs_embeds"], other["inputs_embeds"])


def test_fitting_on_images_helps_where_images_are() -> None:
    """Fitted on text alone, a translator is worse on image prompts than fitted on both."""
    target, model, processor = model_on_a_surrogate()
    held_out = ImagePrompts(model, rows(60)[40:], ChatCollator(processor))
    errors = {}
    for name, shown in (("text", False), ("images", True)):
        other = copy.deepcopy(model)
        closed_form(other.language_model, target, ImagePrompts(model, rows(40, shown), ChatCollator(processor)))
        errors[name] = splice_error(other.language_model, target, held_out)[0]
        changed = {
            name
            for (name, now), before in zip(other.named_parameters(), model.parameters(), strict=True)
            if not torch.equal(now, before)
        }
        assert len(changed) == len(refitted_weights(other.language_model)) == 2
    assert errors["images"] < 0.8 * errors["text"]
