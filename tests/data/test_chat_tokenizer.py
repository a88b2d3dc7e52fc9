"""The tokenizer of language models that are trained from scratch."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from hf_chain.data.chat import train_chat_tokenizer
from hf_chain.errors import HfChainError

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"<image>\nhow many {color} circles are there?"},
            {"role": "assistant", "content": "two"},
        ]
    }
    for color in ("red", "green", "blue")
]


def test_it_writes_any_text_and_reads_it_back():
    tokenizer = train_chat_tokenizer(ROWS, 400, 64)
    text = "how many  blue circles?\n\tÄpfel 🍎"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert len(tokenizer.tokenize("how many circles")) < len(tokenizer.tokenize("wohin manie zirkel"))
    assert tokenizer.model_max_length == 64


def test_it_loads_in_stock_classes_with_its_template(tmp_path):
    tokenizer = train_chat_tokenizer(ROWS, 400)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = ROWS[0]["messages"]
    assert loaded.apply_chat_template(messages, return_dict=False) == tokenizer.apply_chat_template(
        messages, return_dict=False
    )
    assert loaded.apply_chat_template(messages, tokenize=False) == (
        "<|begin|><|user|><image>\nhow many red circles are there?<|end|><|assistant|>two<|end|>"
    )
    prompt = loaded.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<|end|><|assistant|>")


def test_images_and_marks_are_one_token_each():
    tokenizer = train_chat_tokenizer(ROWS, 400)
    ids = tokenizer("<|begin|><|user|><image><|end|><|assistant|>", add_special_tokens=False)["input_ids"]
    assert len(ids) == 5 and tokenizer.pad_token_id not in ids
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (ids[0], ids[3])


def test_it_is_the_same_for_the_same_rows():
    assert train_chat_tokenizer(ROWS, 400).get_vocab() == train_chat_tokenizer(ROWS, 400).get_vocab()


def test_a_vocabulary_without_room_or_text_is_refused():
    with pytest.raises(HfChainError, match="vocab_size is 200; bytes and marks alone need 263"):
        train_chat_tokenizer(ROWS, 200)
    with pytest.raises(HfChainError, match="no text to learn from"):
        train_chat_tokenizer([], 400)
