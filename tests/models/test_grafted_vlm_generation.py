"""Generation: from returned caches, several sequences of a prompt, and how often images are looked at."""

from __future__ import annotations

import copy
import inspect
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, GenerationConfig, LlamaForCausalLM, LlavaForConditionalGeneration

import hf_chain.models.grafted_vlm.modeling_grafted_vlm as modeling
from hf_chain.errors import HfChainError
from hf_chain.grafting.export_llava import export_llava
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.models import GraftedVLMForConditionalGeneration, from_parts
from hf_chain.models.grafted_vlm.assembly import with_image_half
from support.decoders import tiny_decoder
from support.grafted_parts import NAFLEX, image_processor, photos, processed, tiny_parts, tiny_tokenizer, tiny_tower

OPTIONS: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
OPTIONS |= {"return_dict_in_generate": True, "output_logits": True}
CACHE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"
"""What the installed transformers calls it."""


def looks(model: GraftedVLMForConditionalGeneration) -> list[int]:
    """Number of images of each run of the vision tower from now on."""
    runs: list[int] = []
    model.vision_tower.register_forward_hook(lambda _, __, output: runs.append(len(output.last_hidden_state)))
    return runs


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning")
@pytest.mark.parametrize("decoder", ["llama", "gpt2", "gemma3"])
@torch.no_grad()
def test_a_conversation_goes_on_from_the_returned_cache(decoder: str) -> None:
    model, processor = tiny_parts(decoder=decoder)
    runs = looks(model)
    first = processed(processor, ["what is this <image>"])
    turn = model.generate(**first, **OPTIONS)
    assert runs == [1]
    second = processor(text="is <image> this", images=photos(2)[1], return_tensors="pt")
    ids = torch.cat([turn.sequences, second["input_ids"]], dim=1)
    mask = torch.ones_like(ids)
    pixels = torch.cat([first["pixel_values"], second["pixel_values"]])
    whole = model.generate(input_ids=ids, attention_mask=mask, pixel_values=pixels, use_cache=False, **OPTIONS)
    for name in {CACHE, "past_key_values"}:
        runs.clear()
        cache = {name: copy.deepcopy(turn[CACHE])}
        more = {"input_ids": ids, "attention_mask": mask, "pixel_values": second["pixel_values"]}
        cached = model.generate(**more, **cache, **OPTIONS)
        assert runs == [1]
        assert torch.equal(cached.sequences, whole.sequences)
        torch.testing.assert_close(cached.logits, whole.logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(HfChainError, match="7 image placeholders but pixel_values is missing"):
        model.generate(input_ids=ids, attention_mask=mask, **{CACHE: copy.deepcopy(turn[CACHE])}, **OPTIONS)


@torch.no_grad()
def test_the_forward_takes_the_cache_by_either_name() -> None:
    model, processor = tiny_parts()
    inputs = processed(processor, ["<image> what is this"])
    whole = model(**inputs).logits[:, -1:]
    start = {name: value[:, :-1] for name, value in inputs.items() if name != "pixel_values"}
    for name in {CACHE, "past_key_values"}:
        cache = model(**start, pixel_values=inputs["pixel_values"], use_cache=True)[CACHE]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            logits = model(input_ids=inputs["input_ids"][:, -1:], **{name: cache}).logits
        torch.testing.assert_close(logits, whole, rtol=1e-5, atol=1e-5)


def test_generation_raises_no_warning() -> None:
    model, processor = tiny_parts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.generate(**processed(processor, ["what is this <image>"]), **OPTIONS)


@pytest.mark.parametrize("prompt", ["what is this <image>", "what is this"])
def test_one_look_is_enough_where_every_process_must_look(prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under ZeRO-3 text alone looks as well, as the others would wait for it."""
    model, processor = tiny_parts()
    runs = looks(model)
    monkeypatch.setattr(modeling, "builds_in_pieces", lambda: True)
    model.generate(**processed(processor, [prompt]), **OPTIONS)
    assert runs == [1]


@pytest.mark.parametrize("tower", ["clip_vision_model", NAFLEX])
@torch.no_grad()
def test_every_copy_of_a_prompt_has_all_its_images(tower: str) -> None:
    model, processor = tiny_parts(tower)
    wide, narrow, other = photos(3)
    prompts = ["<image> is <image> a goldfish", "what is a goldfish", "what is this <image>"]
    images = [wide.resize((40, 12)), narrow, other]
    inputs = processor(text=prompts, images=images, padding=True, padding_side="left", return_tensors="pt")
    expected = model.generate(**inputs, **OPTIONS).logits[0].repeat_interleave(2, dim=0)
    sampled = model.generate(**inputs, **(OPTIONS | {"do_sample": True, "num_return_sequences": 2}))
    torch.testing.assert_close(sampled.logits[0], expected, rtol=1e-5, atol=1e-5)
    beams = model.generate(**inputs, **OPTIONS, num_beams=2)
    torch.testing.assert_close(beams.logits[0], expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(HfChainError, match="image positions"):
        broken = inputs["input_ids"].where(inputs["input_ids"] != model.config.image_token_id, 0)
        model.generate(**(dict(inputs) | {"input_ids": broken}), **OPTIONS, num_beams=2)


ASSISTED: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@pytest.mark.parametrize("prompt", ["what is this <image>", "<image> is <image> a goldfish", "what is this"])
@pytest.mark.parametrize("assistant", ["itself", "another graft", "its export", "a language model", "its prompt"])
def test_assisted_answers_are_those_without_help(assistant: str, prompt: str, tmp_path: Path) -> None:
    model, processor = tiny_parts()
    inputs = processed(processor, [prompt])
    expected = model.generate(**inputs, **ASSISTED)
    if assistant == "its prompt":
        helped = model.generate(**inputs, **ASSISTED, prompt_lookup_num_tokens=3)
    else:
        if assistant == "its export":
            export_llava(model, processor, tmp_path / "llava")
        helper = {
            "itself": lambda: model,
            "another graft": lambda: tiny_parts(decoder_fields={"num_hidden_layers": 1})[0],
            "its export": lambda: LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava"),
            "a language model": lambda: tiny_decoder("llama", num_hidden_layers=1),
        }[assistant]()
        helped = model.generate(**inputs, **ASSISTED, assistant_model=helper)
    assert torch.equal(helped, expected)


@pytest.mark.parametrize("kind", ["grafted", "exported", "text"])
def test_a_surrogate_drafts_for_its_target(kind: str, tmp_path: Path) -> None:
    """The same image half on both. Answers are the target's own; in fewer steps of it where our classes see alike."""
    model, processor = tiny_parts(decoder_fields={"num_hidden_layers": 6})
    with torch.no_grad():
        for layer in model.language_model.model.layers[2:5]:
            layer.self_attn.o_proj.weight.mul_(0.02)
            layer.mlp.down_proj.weight.mul_(0.02)
    surrogate = build_surrogate(model.language_model, replaced="2-4")
    assistant: Any = surrogate
    if kind != "text":
        config = type(model.config)(**model.config.to_dict() | {"text_config": surrogate.config})
        assistant = with_image_half(config, model, surrogate)
    prompt = "<image> is <image> a goldfish"
    if kind == "exported":
        for name, exported in {"target": model, "assistant": assistant}.items():
            export_llava(exported, processor, tmp_path / name)
        model, assistant = map(LlavaForConditionalGeneration.from_pretrained, sorted(tmp_path.iterdir(), reverse=True))
        processor = AutoProcessor.from_pretrained(tmp_path / "target")
        prompt = prompt.replace("<image>", "<image_start><image><image_end>")
    assistant.generation_config.update(num_assistant_tokens=4, assistant_confidence_threshold=0.0)
    inputs, steps = dict(processor(text=prompt, images=photos(2), return_tensors="pt")), []
    expected = model.generate(**inputs, **ASSISTED)
    model.get_decoder().register_forward_hook(lambda *_: steps.append(1))
    assert torch.equal(model.generate(**inputs, **ASSISTED, assistant_model=assistant), expected)
    assert len(steps) < 12 or kind != "grafted"


def test_an_assistant_looks_once_and_guesses_right() -> None:
    """Guesses of a copy are all right only if it sees the image too."""
    model, processor = tiny_parts()
    copied = copy.deepcopy(model)
    copied.generation_config.update(num_assistant_tokens=5, assistant_confidence_threshold=0.0)
    runs, steps = looks(copied), []
    model.language_model.register_forward_hook(lambda *_: steps.append(1))
    model.generate(**processed(processor, ["what is this <image>"]), **ASSISTED, assistant_model=copied)
    assert runs == [1]
    assert len(steps) == 2  # 5 guesses and a token of its own, then 7 and as many


def test_a_language_model_without_a_row_for_the_placeholder_assists() -> None:
    tokenizer = tiny_tokenizer()
    decoder, helper = (tiny_decoder("llama", vocab_size=len(tokenizer), num_hidden_layers=layers) for layers in (3, 1))
    model, processor = from_parts(tiny_tower(), decoder, tokenizer, image_processor())
    inputs = processed(processor, ["what is this <image>"])
    expected = model.generate(**inputs, **ASSISTED)
    assert torch.equal(model.generate(**inputs, **ASSISTED, assistant_model=helper), expected)


@pytest.mark.parametrize(
    "settings", [{"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 2}, {"prompt_lookup_num_tokens": 3}]
)
def test_settings_that_look_the_placeholder_up_need_a_row_for_it(settings: dict[str, Any]) -> None:
    tokenizer = tiny_tokenizer()
    decoder = tiny_decoder("llama", vocab_size=len(tokenizer))
    model, processor = from_parts(tiny_tower(), decoder, tokenizer, image_processor())
    inputs = processed(processor, ["what <image> is"])
    ids, (name, value) = inputs.pop("input_ids"), *settings.items()
    config = GenerationConfig(max_new_tokens=3, **settings)
    for given in ({"generation_config": config}, settings):
        with pytest.raises(HfChainError, match=f"{name}={value} needs an image token within the vocabulary of 12"):
            model.generate(input_ids=ids, **inputs, **given)
    with pytest.raises(HfChainError, match=f"{name}={value} needs an image token"):
        model.generate(ids, config, **inputs)


def test_images_whose_positions_are_torn_apart_are_refused() -> None:
    model, processor = tiny_parts()
    inputs = processed(processor, ["what <image>", "<image> what"])
    ids, image = inputs["input_ids"], model.config.image_token_id
    model(**inputs)
    ids[0, ids[0].tolist().index(image)] = 6
    ids[1, ids[1].tolist().index(6)] = image
    assert (ids == image).sum(1).tolist() == [6, 8]
    with pytest.raises(HfChainError, match="the 7 positions of an image are torn apart in input_ids"):
        model(**inputs)
