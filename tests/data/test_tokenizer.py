"""The tokenizer is CLIP's own kind; a saved processor gives users the numbers that training saw."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from hf_chain.data import (
    DataSettings,
    ImageTextCollator,
    ImageTextDataset,
    build_processor,
    load_tokenizer,
    train_tokenizer,
)
from hf_chain.errors import HfChainError

TEXTS = ["a red circle on a white background", "two small blue stars", "three stars above a heart's edge"] * 3


def test_the_end_mark_has_the_highest_id_and_pads():
    tokenizer = train_tokenizer(TEXTS, 600, max_length=20)
    assert tokenizer.bos_token == "<|startoftext|>" and tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token_id == len(tokenizer) - 1 == max(tokenizer.get_vocab().values())
    assert tokenizer.bos_token_id == len(tokenizer) - 2
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
    assert len(tokenizer) <= 600 and tokenizer.model_max_length == 20


def test_every_text_can_be_written_without_unknown_tokens():
    tokenizer = train_tokenizer(TEXTS, 520)
    for text in ("zebra", "žlutý kůň", "猫", "xyz! 42", "🙂"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.eos_token_id not in ids[1:-1]
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_case_and_spaces_do_not_matter():
    tokenizer = train_tokenizer(TEXTS, 600)
    assert tokenizer("A  RED circle")["input_ids"] == tokenizer("a red circle")["input_ids"]


def test_frequent_words_are_one_token():
    tokenizer = train_tokenizer(TEXTS, 700)
    assert tokenizer.tokenize("red circle") == ["red</w>", "circle</w>"]


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    with pytest.raises(HfChainError, match="vocab_size is 300"):
        train_tokenizer(TEXTS, 300)


def test_no_text_is_refused():
    with pytest.raises(HfChainError, match="no text"):
        train_tokenizer([], 600)


def test_it_loads_with_stock_auto_tokenizer(tmp_path):
    tokenizer = train_tokenizer(TEXTS, 600, max_length=20)
    tokenizer.save_pretrained(tmp_path)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)):
        assert loaded.get_vocab() == tokenizer.get_vocab() and loaded.model_max_length == 20
        assert all(loaded(text)["input_ids"] == tokenizer(text)["input_ids"] for text in [*TEXTS, "an unseen wörd"])


def test_a_tokenizer_that_is_not_there_gives_one_line(tmp_path):
    with pytest.raises(HfChainError, match="cannot be loaded") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_training_gives_the_same_tokenizer_in_every_process(scenes, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(caption for captions in scenes["train"]["captions"] for caption in captions))
    code = (
        "import hashlib, sys\n"
        "from hf_chain.data import train_tokenizer\n"
        "tokenizer = train_tokenizer(open(sys.argv[1]).read().splitlines(), 640)\n"
        "print(hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest())\n"
    )
    command = [sys.executable, "-c", code, str(corpus)]
    outputs = {
        subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.slow
def test_the_saved_processor_needs_neither_hf_chain_nor_torchvision(scenes, tmp_path):
    pairs = ImageTextDataset(scenes["train"], DataSettings())
    processor = build_processor(train_tokenizer(pairs.captions(0), 600, max_length=24), 48)
    processor.save_pretrained(tmp_path / "member")
    photograph = Image.effect_noise((90, 61), 80).convert("RGB")
    photograph.save(tmp_path / "picture.png")
    batch = ImageTextCollator(processor)([{**pairs[0], "image": photograph, "captions": pairs.captions(0)[:1]}])
    code = (
        "import sys\n"
        "sys.modules['torchvision'] = sys.modules['hf_chain'] = None\n"
        "from PIL import Image\n"
        "from safetensors.torch import save_file\n"
        "from transformers import AutoProcessor\n"
        "folder, picture, text, out = sys.argv[1:]\n"
        "processor = AutoProcessor.from_pretrained(folder)\n"
        "save_file(dict(processor(text=[text], images=Image.open(picture), return_tensors='pt')), out)\n"
    )
    arguments = [tmp_path / "member", tmp_path / "picture.png", pairs.captions(0)[0], tmp_path / "out.safetensors"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    from safetensors.torch import load_file

    users = load_file(tmp_path / "out.safetensors")
    assert torch.equal(users["pixel_values"], batch["pixel_values"])
    length = users["input_ids"].shape[1]
    assert torch.equal(users["input_ids"], batch["input_ids"][0, :, :length])
    assert batch["attention_mask"].sum() == users["attention_mask"].sum() == length
