"""Batches through `pipeline`: a shorter prompt is answered as it is alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoProcessor, AutoTokenizer, pipeline

from hf_chain.data.chat import ChatCollator, train_chat_tokenizer
from hf_chain.grafting.export_llava import export_llava
from hf_chain.models import GraftedVLMProcessor, from_parts
from hf_chain.models.grafted_vlm.language_models import load_tokenizer
from support.decoders import tiny_decoder
from support.grafted_parts import image_processor, photos, tiny_tower

QUESTIONS = ["is it red?", "how many red triangles stand beside the large blue square in this picture of shapes?"]
GENERATION: dict[str, Any] = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`native` and `llava`: a model whose answers depend on the prompt, and its export."""
    folder = tmp_path_factory.mktemp("pipeline")
    words = train_chat_tokenizer([{"messages": [{"content": question}]} for question in QUESTIONS], vocab_size=400)
    del words.init_kwargs["padding_side"]  # most tokenizers are made without, and save what they were made with
    words.padding_side = "right"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        decoder = tiny_decoder("llama", vocab_size=len(words), num_hidden_layers=3, initializer_range=0.5)
        model, processor = from_parts(tiny_tower(), decoder, words, image_processor())
    model.save_pretrained(folder / "native")
    processor.save_pretrained(folder / "native")
    export_llava(model, processor, folder / "llava")
    return folder


def chat(question: str, picture: Any) -> list[dict[str, Any]]:
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


def texts(outputs: list[Any]) -> list[str]:
    flat = [output[0] if isinstance(output, list) else output for output in outputs]
    return [output["generated_text"] for output in flat]


@pytest.mark.parametrize("form", ["native", "llava"])
def test_a_batch_of_two_answers_as_one_by_one(form: str, folders: Path) -> None:
    answer = pipeline("image-text-to-text", model=str(folders / form))
    options = {"generate_kwargs": GENERATION, "return_full_text": False}
    chats = [chat(question, picture) for question, picture in zip(QUESTIONS, photos(2), strict=True)]
    alone = texts([answer(text=one, **options) for one in chats])
    assert alone[0] != alone[1] and all(alone)
    assert texts(answer(text=chats, batch_size=2, **options)) == alone


@pytest.mark.parametrize("form", ["native", "llava"])
def test_saved_processors_pad_on_the_left(form: str, folders: Path) -> None:
    for tokenizer in (
        AutoProcessor.from_pretrained(folders / form).tokenizer,
        AutoTokenizer.from_pretrained(folders / form),
    ):
        batch = tokenizer(QUESTIONS, padding=True, return_tensors="pt")
        assert batch["attention_mask"][0, 0] == 0 and batch["attention_mask"][:, -1].all()


def test_a_processor_that_was_saved_padding_on_the_right_pads_on_the_left(folders: Path, tmp_path: Path) -> None:
    """As those of earlier versions were."""
    processor = GraftedVLMProcessor.from_pretrained(folders / "native")
    processor.tokenizer.padding_side = processor.tokenizer.init_kwargs["padding_side"] = "right"
    processor.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "right"
    assert AutoProcessor.from_pretrained(tmp_path).tokenizer.padding_side == "left"


def test_a_language_models_tokenizer_is_loaded_and_saved_padding_on_the_left(folders: Path, tmp_path: Path) -> None:
    """So that targets and surrogates answer batches too."""
    tokenizer = AutoTokenizer.from_pretrained(folders / "native", padding_side="right")
    tokenizer.save_pretrained(tmp_path / "right")
    load_tokenizer(tmp_path / "right").save_pretrained(tmp_path / "left")
    sides = [AutoTokenizer.from_pretrained(tmp_path / side).padding_side for side in ("right", "left")]
    assert sides == ["right", "left"]


@pytest.mark.parametrize("side", ["left", "right"])
def test_training_pads_on_the_right_whatever_the_processor_does(side: str, folders: Path) -> None:
    processor = GraftedVLMProcessor.from_pretrained(folders / "native")
    processor.tokenizer.padding_side = side
    rows = [
        {
            "messages": [{"role": "user", "content": f"<image>\n{question}"}, {"role": "assistant", "content": "red"}],
            "images": [picture],
        }
        for question, picture in zip(QUESTIONS, photos(2), strict=True)
    ]
    collate = ChatCollator(processor)
    batch, alone = collate(rows), [collate([row]) for row in rows]
    for number, one in enumerate(alone):
        length = one["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][number, :length], one["input_ids"][0])
        assert torch.equal(batch["labels"][number, :length], one["labels"][0])
        assert not batch["attention_mask"][number, length:].any() and (batch["labels"][number, length:] == -100).all()
