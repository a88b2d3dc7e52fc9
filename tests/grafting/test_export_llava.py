"""The export: a stock Llava with the same logits, where hf_chain is not installed too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from hf_chain.errors import HfChainError
from hf_chain.grafting.export_llava import export_llava
from hf_chain.models import GraftedVLMForConditionalGeneration, GraftedVLMProcessor, from_parts
from support.decoders import DECODERS, tiny_decoder
from support.forks import forked
from support.grafted_parts import (
    CHAT_TEMPLATE,
    TOWERS,
    image_processor,
    photos,
    tiny_parts,
    tiny_tokenizer,
    tiny_tower,
)

PROMPTS = ["what is this <image>", "<image> is <image> a goldfish", "what is a goldfish"]
CHAT = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is this"}]},
    {"role": "assistant", "content": "a goldfish <image>"},
]
OTHER_LOGITS = ("gemma2", "gemma3_text", "opt", "granite", "phi", "cohere")
"""Decoders with a soft cap, or with two sizes."""


def exported(
    model: GraftedVLMForConditionalGeneration, processor: GraftedVLMProcessor, folder: Path, serving: bool = False
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    export_llava(model, processor, folder, serving=serving)
    llava, report = LlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    return llava, AutoProcessor.from_pretrained(folder)


@torch.no_grad()
def check_logits(
    model: GraftedVLMForConditionalGeneration, processor: GraftedVLMProcessor, folder: Path, serving: bool = False
) -> None:
    """Equal to 1e-5, and no new token ever wins."""
    llava, stock = exported(model, processor, folder, serving)
    images = photos(3)
    ours = processor(text=PROMPTS, images=images, padding=True, return_tensors="pt")
    around = [prompt.replace("<image>", "<image_start><image><image_end>") for prompt in PROMPTS]
    theirs = stock(text=around, images=images, padding=True, return_tensors="pt")
    assert type(stock) is LlavaProcessor
    mask = ours["attention_mask"].bool()
    expected, logits = model(**ours).logits[mask], llava(**theirs).logits[mask]
    vocabulary = model.config.text_config.vocab_size
    torch.testing.assert_close(logits[:, :vocabulary], expected, rtol=0, atol=1e-5)
    if logits.shape[1] > vocabulary:
        assert (logits[:, vocabulary:].amax(1) < expected.amax(1)).all()


@pytest.mark.parametrize("serving", [False, True])
@pytest.mark.parametrize("tower", TOWERS)
def test_logits_are_equal_for_any_tower(tower: str, serving: bool, tmp_path: Path) -> None:
    check_logits(*tiny_parts(tower), tmp_path / "llava", serving)


@pytest.mark.parametrize("serving", [False, True])
@pytest.mark.parametrize("tower", ["clip_vision_model", "siglip_vision_model"])
def test_weights_have_the_names_of_published_llavas(tower: str, serving: bool, tmp_path: Path) -> None:
    """Serving engines look for these and no others: vLLM 0.32 serves such a folder and refuses transformers' names."""
    model, processor = tiny_parts(tower)
    export_llava(model, processor, tmp_path / "llava", serving=serving)
    names = load_file(tmp_path / "llava" / "model.safetensors").keys()
    assert {name.partition(".")[0] for name in names} == {"language_model", "multi_modal_projector", "vision_tower"}
    assert {"language_model.lm_head.weight", "language_model.model.embed_tokens.weight"} < names
    assert {"multi_modal_projector.linear_1.weight", "multi_modal_projector.linear_2.bias"} < names
    assert {f"vision_tower.vision_model.{name}" for name in model.vision_tower.state_dict()} < names
    assert all(name.startswith("vision_tower.vision_model.") for name in names if name.startswith("vision_tower"))


@pytest.mark.parametrize("decoder", [decoder for decoder in DECODERS if decoder not in OTHER_LOGITS])
def test_logits_are_equal_for_any_decoder(decoder: str, tmp_path: Path) -> None:
    check_logits(*tiny_parts(decoder=decoder), tmp_path / "llava")


@pytest.mark.parametrize(
    "options",
    [
        {"class_token": False},
        {"post_layernorm": False, "vision_layer": -2, "class_token": False},
        {"tower": "dinov2", "post_layernorm": False},
        {"tower": "vit", "post_layernorm": False},
        {"decoder": "gemma3_text", "decoder_fields": {"final_logit_softcapping": None}},
        {"adapter_hidden_size": 20},
        {"tower": "siglip_vision_model", "class_token": False},
        {"decoder_fields": {"vocab_size": 12}},
        {"decoder_fields": {"vocab_size": 12, "tie_word_embeddings": True}},
    ],
)
def test_logits_are_equal_whatever_the_shape(options: dict[str, Any], tmp_path: Path) -> None:
    check_logits(*tiny_parts(**options), tmp_path / "llava")


@pytest.mark.parametrize("mark", ["", "<s>"])
def test_chats_have_the_tokens_of_ours_whatever_the_tokenizer_adds(mark: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(f"{{{{ '{mark}' }}}}{CHAT_TEMPLATE}")
    beginning = [("<s>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=beginning)
    model, processor = from_parts(tiny_tower(), tiny_decoder("llama"), tokenizer, image_processor())
    _, stock = exported(model, processor, tmp_path / "llava")
    content = [{"type": "image", "image": photos(1)[0]}, {"type": "text", "text": "what is this"}]
    options: dict[str, Any] = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    chat = [{"role": "user", "content": content}]
    ours = processor.apply_chat_template(chat, **options)["input_ids"][0]
    theirs = stock.apply_chat_template(chat, **options, processor_kwargs={"add_special_tokens": False})["input_ids"][0]
    edges = stock.tokenizer.convert_tokens_to_ids(["<image_start>", "<image_end>"])
    assert [model.config.image_token_id if token in edges else token for token in theirs] == ours
    if mark:
        assert stock.apply_chat_template(chat, **options)["input_ids"][0] == theirs


def test_tokens_that_stand_for_images_are_never_generated(tmp_path: Path) -> None:
    decoder = tiny_decoder("llama")
    decoder.generation_config.suppress_tokens = [3]
    model, processor = from_parts(tiny_tower(), decoder, tiny_tokenizer(), image_processor())
    assert model.generation_config.suppress_tokens == [3, model.config.image_token_id]
    llava, stock = exported(model, processor, tmp_path / "llava")
    edges = stock.tokenizer.convert_tokens_to_ids(["<image_start>", "<image_end>"])
    assert max(edges) < model.config.text_config.vocab_size  # where they take old rows of the head
    assert llava.generation_config.suppress_tokens == [3, model.config.image_token_id, *edges]
    assert model.generation_config.suppress_tokens == [3, model.config.image_token_id]


def test_a_weight_that_llava_reads_is_not_made_up(tmp_path: Path) -> None:
    model, processor = tiny_parts()
    model.vision_tower.pre_layrnorm.register_parameter("bias", None)
    with pytest.raises(HfChainError, match="lacks vision_tower.pre_layrnorm.bias, other than its config"):
        export_llava(model, processor, tmp_path / "llava")


def test_the_model_is_not_changed(tmp_path: Path) -> None:
    model, processor = tiny_parts(decoder_fields={"tie_word_embeddings": True})
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    words = processor.tokenizer.get_vocab()
    export_llava(model, processor, tmp_path / "llava")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert processor.tokenizer.get_vocab() == words


def test_chats_become_the_same_prompts_with_start_and_end(tmp_path: Path) -> None:
    model, processor = tiny_parts()
    _, stock = exported(model, processor, tmp_path / "llava")
    text = stock.apply_chat_template(CHAT, add_generation_prompt=True)
    assert text.count("<image_start><image><image_end>") == text.count("<image>") == 2
    assert re.sub("<image_(start|end)>", "", text) == processor.apply_chat_template(CHAT, add_generation_prompt=True)


@torch.no_grad()
def test_bfloat16_stays_as_exact_as_bfloat16_is(tmp_path: Path) -> None:
    model, processor = tiny_parts()
    images, prompt = photos(1), "what is this <image>"
    exact = model(**processor(text=prompt, images=images, return_tensors="pt")).logits
    model.to(torch.bfloat16)
    rough = model(**processor(text=prompt, images=images, return_tensors="pt")).logits
    llava, stock = exported(model, processor, tmp_path / "llava")
    prompt = "what is this <image_start><image><image_end>"
    logits = llava(**stock(text=prompt, images=images, return_tensors="pt")).logits
    assert logits.dtype == torch.bfloat16
    assert (logits - exact).abs().mean() < 2 * (rough - exact).abs().mean()


SERVE = """
import json, sys
sys.modules["hf_chain"] = None
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
folder, photo = sys.argv[1:]
model = LlavaForConditionalGeneration.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
content = [{"type": "image"}, {"type": "text", "text": "what is this"}]
prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
inputs = processor(text=prompt, images=Image.open(photo), return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)
print(json.dumps(tokens[0, inputs["input_ids"].shape[1]:].tolist()))
"""


@pytest.mark.slow
def test_the_same_tokens_are_generated_without_hf_chain(tmp_path: Path) -> None:
    model, processor = tiny_parts("clip", decoder_fields={"num_hidden_layers": 4})
    (photo,) = photos(1)
    photo.save(tmp_path / "photo.png")
    export_llava(model, processor, tmp_path / "llava")
    content = [{"type": "image"}, {"type": "text", "text": "what is this"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=prompt, images=photo, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    said = forked("-c", SERVE, tmp_path / "llava", tmp_path / "photo.png", folder=tmp_path)
    assert json.loads(said) == tokens[0, inputs["input_ids"].shape[1] :].tolist()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "adapter": ({"adapter_layers": 3}, "its adapter has 3 layers, Llava's has 2"),
    "flat adapter": ({"adapter_layers": 1}, "its adapter has 1 layers, Llava's has 2"),
    "inner size": ({"adapter_hidden_size": 40}, "its adapter is 40 wide inside, Llava's as its language model, 32"),
    "registers": (
        {"tower": "dinov2_with_registers", "class_token": False},
        "it drops 3 tokens in front of the patches, Llava can drop 1 or none",
    ),
    "soft cap": ({"decoder": "gemma2"}, "Gemma2ForCausalLM does more to its logits than its head"),
    "sizes": ({"decoder": "opt"}, "its language model embeds in 16 channels and thinks in 32"),
    "float16": ({"dtype": torch.float16}, "float16 cannot hold the numbers that serving takes"),
    "narrow": (
        {"tower_fields": {"intermediate_size": 40}},
        "its intermediate_size 40 is below twice its hidden",
    ),
    "gated": ({"tower": "dinov2", "tower_fields": {"use_swiglu_ffn": True}}, "its MLP is gated"),
    "activation": ({"tower_fields": {"hidden_act": "relu2"}}, "with hidden_act 'relu2' its MLP cannot be an identity"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_llava_cannot_say_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    options, message = REFUSED[case]
    model, processor = tiny_parts(**options)
    with pytest.raises(HfChainError, match="cannot be exported") as caught:
        export_llava(model, processor, tmp_path / "llava", serving=case == "float16")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    model, processor = tiny_parts()
    with pytest.raises(HfChainError, match="exists already"):
        export_llava(model, processor, tmp_path)
    processor.tokenizer.add_tokens("<image_end>")
    with pytest.raises(HfChainError, match="has a token '<image_end>' already"):
        export_llava(model, processor, tmp_path / "llava")


def test_only_grafted_models_with_their_processors_are_exported(tmp_path: Path) -> None:
    model, processor = tiny_parts()
    for vlm, words in ((model.language_model, processor), (model, processor.tokenizer)):
        with pytest.raises(
            HfChainError, match="a .* with a .* cannot be exported: give a grafted model and its proces"
        ):
            export_llava(vlm, words, tmp_path / "llava")
    assert not (tmp_path / "llava").exists()
