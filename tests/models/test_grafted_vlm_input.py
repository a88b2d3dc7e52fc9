"""Prompts, chats and parts: what is made of good ones, and the one line that bad ones get."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, LlamaModel

from hf_chain.data.chat import ChatEncoder
from hf_chain.errors import HfChainError
from hf_chain.models import GraftedVLMConfig, GraftedVLMForConditionalGeneration, GraftedVLMProcessor, from_parts
from support.grafted_parts import (
    CHAT_TEMPLATE,
    image_processor,
    photos,
    processed,
    tiny_decoder,
    tiny_parts,
    tiny_tokenizer,
    tiny_tower,
)

Parts = tuple[GraftedVLMForConditionalGeneration, GraftedVLMProcessor]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return tiny_parts()


def test_a_placeholder_becomes_start_tokens_and_end(parts: Parts) -> None:
    model, processor = parts
    ids = processed(processor, ["what <image> is"])["input_ids"][0]
    assert model.config.tokens_per_image == processor.tokens_per_image == 5
    assert (ids == model.config.image_token_id).sum() == 1 + 5 + 1
    assert processor.decode(ids).count("<image>") == 7


def test_typed_content_and_text_with_placeholders_are_the_same_chat(parts: Parts) -> None:
    _, processor = parts
    typed = [{"type": "image"}, {"type": "text", "text": "what is this"}]
    expected = "<user><image>\nwhat is this</s><assistant>a goldfish</s>"
    for content in (typed, "<image>\nwhat is this"):
        chat = [{"role": "user", "content": content}, {"role": "assistant", "content": "a goldfish"}]
        assert processor.apply_chat_template(chat) == expected
    several = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is"}, {"type": "image"}]}]
    assert processor.apply_chat_template(several, add_generation_prompt=True).count("<image>") == 2
    assert processor.apply_chat_template([several, several]) == ["<user><image>\nis\n<image></s>"] * 2


def test_a_chat_with_its_images_becomes_a_batch(parts: Parts) -> None:
    model, processor = parts
    (photo,) = photos(1)
    chat = [{"role": "user", "content": [{"type": "image", "image": photo}, {"type": "text", "text": "what is this"}]}]
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    inputs = processor.apply_chat_template(chat, return_tensors="pt", **options)
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    expected = processor(text=prompt, images=photo, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert torch.equal(inputs["pixel_values"], expected["pixel_values"])
    assert model(**inputs).logits.shape[1] == inputs["input_ids"].shape[1]


def test_a_rendered_chat_gets_no_second_beginning() -> None:
    tokenizer = tiny_tokenizer("{{ '<s>' }}{% for message in messages %}{{ message['content'] }}{% endfor %}")
    beginning = [("<s>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=beginning)
    _, processor = from_parts(tiny_tower(), tiny_decoder("llama"), tokenizer, image_processor())
    chat = processor.apply_chat_template([{"role": "user", "content": "what is this"}])
    for prompt in (chat, "what is this"):
        assert processor(text=prompt)["input_ids"][0].count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("mark", ["", "<s>"])
def test_a_chat_has_the_tokens_of_training_whatever_the_tokenizer_adds(mark: str) -> None:
    tokenizer = tiny_tokenizer(f"{{{{ '{mark}' }}}}{CHAT_TEMPLATE}")
    beginning = [("<s>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=beginning)
    _, processor = from_parts(tiny_tower(), tiny_decoder("llama"), tokenizer, image_processor())
    (photo,) = photos(1)
    content = [{"type": "image", "image": photo}, {"type": "text", "text": "what is this"}]
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    ids = processor.apply_chat_template([{"role": "user", "content": content}], **options)["input_ids"][0]
    message = {"role": "user", "content": "<image>\nwhat is this"}
    assert ids == ChatEncoder(processor).encode_prompt([message], [photo])
    assert ids.count(tokenizer.bos_token_id) == bool(mark)


def test_images_may_be_nested_by_prompt_or_flat(parts: Parts, tmp_path: Path) -> None:
    _, processor = parts
    one, two, three = photos(3)
    prompts = ["what", "<image> is <image>", "a <image>"]
    nested = processor(text=prompts, images=[[], [one, two], [three]], padding=True, return_tensors="pt")
    flat = processor(text=prompts, images=[one, two, three], padding=True, return_tensors="pt")
    assert torch.equal(nested["pixel_values"], flat["pixel_values"])
    assert torch.equal(nested["input_ids"], flat["input_ids"])
    arrays = [np.asarray(image) for image in (one, two, three)]
    stacked = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    one.save(tmp_path / "one.png")
    for batched in (stacked, stacked.numpy(), list(stacked), arrays, [str(tmp_path / "one.png"), two, three]):
        same = processor(text=prompts, images=batched, padding=True, return_tensors="pt")
        assert torch.equal(same["pixel_values"], flat["pixel_values"])
        assert torch.equal(same["input_ids"], flat["input_ids"])
    assert "pixel_values" not in processor(text=["what", "is"], images=[[], None], padding=True)


@pytest.mark.parametrize("side", [8, 200])
def test_a_path_and_base64_are_the_image_they_stand_for_in_a_call_and_in_a_chat(
    parts: Parts, tmp_path: Path, side: int
) -> None:
    _, processor = parts
    file = tmp_path / "noise [1].png"
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    text = base64.encodebytes(file.read_bytes()).decode()
    expected = processor(text="<image>", images=Image.open(file), return_tensors="pt")["pixel_values"]
    for image in (file, str(file), text, text.replace("\n", ""), f"data:image/png;base64,{text}"):
        called = processor(text="<image>", images=image, return_tensors="pt")
        chat = [{"role": "user", "content": [{"type": "image", "image": image}]}]
        asked = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
        assert torch.equal(called["pixel_values"], expected) and torch.equal(asked["pixel_values"], expected)


def test_a_file_that_is_not_there_is_said_to_be_missing(parts: Parts) -> None:
    with pytest.raises(HfChainError, match="image '/no/such.png' cannot be read, there is no such file: give a pict"):
        parts[1](text="<image>", images="/no/such.png")


@pytest.mark.parametrize("token", ["", " ", "what", "</s>", "<s>"])
def test_an_image_token_that_texts_hold_anyway_is_refused(token: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<s>"
    with pytest.raises(HfChainError, match=f"image_token='{token}' stands in texts without an image: give a token of"):
        from_parts(tiny_tower(), tiny_decoder("llama"), tokenizer, image_processor(), image_token=token)


def test_the_given_tokenizer_stays_as_it_is() -> None:
    tokenizer = tiny_tokenizer()
    _, processor = from_parts(tiny_tower(), tiny_decoder("llama"), tokenizer, image_processor())
    assert "<image>" in processor.tokenizer.get_vocab()
    assert "<image>" not in tokenizer.get_vocab()


def test_a_placeholder_outside_of_the_vocabulary_needs_no_row() -> None:
    tokenizer = tiny_tokenizer()
    decoder = tiny_decoder("llama", vocab_size=len(tokenizer))
    model, processor = from_parts(tiny_tower(), decoder, tokenizer, image_processor())
    assert model.config.image_token_id == decoder.config.vocab_size
    inputs = processed(processor, ["what <image> is"])
    assert model.generate(**inputs, max_new_tokens=3).shape[0] == 1
    with pytest.raises(HfChainError, match=r"repetition_penalty=1.2 needs an image token within the vocabulary of 12"):
        model.generate(**inputs, max_new_tokens=3, repetition_penalty=1.2)


def _asks(**inputs: Any) -> Callable[[Parts], object]:
    return lambda parts: parts[1](**inputs)


def _shows(**changes: Any) -> Callable[[Parts], object]:
    return lambda parts: parts[0](**(processed(parts[1], ["what <image> is"]) | changes))


def _joins(**changes: Any) -> Callable[[Parts], object]:
    def join(_: Parts) -> object:
        given = {"encoder": tiny_tower(), "decoder": tiny_decoder("llama"), "tokenizer": tiny_tokenizer()}
        return from_parts(**(given | {"image_processor": image_processor()} | changes))

    return join


BAD: dict[str, tuple[Callable[[Parts], object], str]] = {
    "more images": (_asks(text="a <image>", images=photos(2)), "the batch has 1 <image> but 2 images: put an <image>"),
    "fewer images": (_asks(text=["<image>", "<image>"], images=photos(1)), "has 2 <image> but 1 images: give the mis"),
    "image without placeholder": (_asks(text="what", images=photos(1)), "the batch has 0 <image> but 1 images"),
    "wrong prompt": (_asks(text=["<image>", "a"], images=[[], photos(1)]), "prompt 0 has 1 <image> but 0 images"),
    "lists": (_asks(text=["<image>", "a"], images=[photos(1)]), "1 lists of images for 2 prompts: give one list"),
    "no pixels": (_shows(pixel_values=None), "input_ids hold 7 image placeholders but pixel_values is missing"),
    "pixels of another size": (_shows(pixel_values=torch.zeros(1, 3, 32, 32)), "takes [images, 3, 16, 16]"),
    "one pixel too many": (
        _shows(pixel_values=torch.zeros(2, 3, 16, 16)),
        "7 image positions, fewer than the 14",
    ),
    "no ids": (lambda parts: parts[0](), "give either input_ids or inputs_embeds"),
    "embeddings and images": (
        lambda parts: parts[0](inputs_embeds=torch.zeros(1, 2, 32), pixel_values=torch.zeros(1, 3, 16, 16)),
        "pixel_values need input_ids",
    ),
    "no tokenizer": (_joins(tokenizer=None), "a decoder in memory brings no tokenizer: give tokenizer="),
    "no image processor": (_joins(image_processor=None), "an encoder in memory brings no image processor"),
    "other image size": (
        _joins(image_processor=image_processor(32)),
        "makes images of 32x32 pixels, the encoder",
    ),
    "no head": (
        _joins(decoder=LlamaModel(tiny_decoder("llama").config)),
        "LlamaModel has no language-model head: load it with AutoModelForCausalLM",
    ),
    "missing folder": (_joins(decoder="/nowhere/model"), "language model /nowhere/model cannot be loaded"),
    "missing encoder": (_joins(encoder="/nowhere/clip"), "encoder /nowhere/clip cannot be loaded"),
    "no vision": (_joins(encoder=BertModel(BertConfig(num_hidden_layers=1))), "vision model_type 'bert' is not known"),
    "layer": (_joins(vision_layer=-4), "vision_layer=-4 is outside of a tower with 3 layers: use -3 … -1"),
    "no adapter": (_joins(adapter_layers=0), "adapter_layers=0: the adapter needs at least 1 linear layer"),
    "unknown tower": (
        lambda _: GraftedVLMConfig(vision_config={"model_type": "beit"}),
        "vision model_type 'beit' is not known: use one of clip_vision_model",
    ),
    "tower of stages": (
        lambda _: GraftedVLMConfig(vision_config={"model_type": "swinv2"}),
        "vision model_type 'swinv2' cannot be grafted, as its stages merge patches: use one of clip_vision_model",
    ),
    "tower that hides patches": (
        lambda _: GraftedVLMConfig(vision_config={"model_type": "vit_mae"}),
        "vision model_type 'vit_mae' cannot be grafted, as it hides patches and shuffles the others",
    ),
    "tokenizer without the token": (
        lambda _: GraftedVLMProcessor(image_processor(), tiny_tokenizer()),
        "the tokenizer has no image token '<image>': add it with",
    ),
    "no chat template": (
        lambda _: from_parts(tiny_tower(), tiny_decoder("llama"), tiny_tokenizer(None), image_processor())[
            1
        ].apply_chat_template([{"role": "user", "content": "what"}]),
        "the tokenizer has no chat template: give chat_template= to from_parts",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line(case: str, parts: Parts) -> None:
    does, message = BAD[case]
    with pytest.raises(HfChainError, match=re.escape(message)) as caught:
        does(parts)
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_gets_one_line(tmp_path: Path) -> None:
    tiny_decoder("llama").config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(HfChainError, match="cannot be loaded") as caught:
        from_parts(tiny_tower(), tmp_path, tiny_tokenizer(), image_processor())
    assert "\n" not in str(caught.value)
