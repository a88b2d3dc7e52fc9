"""Texts and conversations become token batches, in order, as often as wanted; rows that cannot be used are counted."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from hf_chain.data.chat import train_chat_tokenizer
from hf_chain.data.text import token_batches
from hf_chain.errors import HfChainError

LINES = ["a red circle", "a blue square above a star", "two green rings", "one cross", "a small black triangle"]
CHATS = [[{"role": "user", "content": line}, {"role": "assistant", "content": line.split()[-1]}] for line in LINES]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_chat_tokenizer([{"messages": chat} for chat in CHATS], vocab_size=300)


def refused(message: str) -> AbstractContextManager[object]:
    return pytest.raises(HfChainError, match=f"(?-s:^.*{message}.*$)")


def texts(batches, tokenizer) -> list[str]:
    """What the batches say, without padding, and without the space that begins each turn's tokens."""
    return [
        tokenizer.decode(ids[mask.bool()]).replace("|> ", "|>")
        for batch in batches
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet", "csv", "folder", "saved", "saved_split", "rows", "lines"])
def test_texts_are_read_from_anywhere_in_order(kind: str, tmp_path: Path, tokenizer) -> None:
    rows, place = Dataset.from_dict({"text": LINES, "number": range(5)}), tmp_path / f"data.{kind}"
    if kind in ("txt", "folder"):
        place = tmp_path / "folder" / "train.txt"
        place.parent.mkdir()
        place.write_text("\n".join(LINES) + "\n")
        place = place.parent if kind == "folder" else place
    elif kind == "jsonl":
        place.write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES))
    elif kind == "parquet":
        rows.to_parquet(place)
    elif kind == "csv":
        rows.to_csv(place)
    elif kind.startswith("saved"):
        (rows if kind == "saved" else DatasetDict(train=rows)).save_to_disk(place)
    source = {"rows": rows, "lines": LINES}.get(kind, place)
    batches = token_batches(source, tokenizer, batch_size=2)
    assert [len(batch["input_ids"]) for batch in batches] == [2, 2, 1]
    assert texts(batches, tokenizer) == LINES
    assert not batches.skipped


def test_samples_are_cut_counted_and_padded_on_the_right(tokenizer) -> None:
    (batch,) = token_batches(LINES, tokenizer, max_tokens=4, max_samples=3)
    assert batch["input_ids"].shape == (3, 4)
    assert set(batch) == {"input_ids", "attention_mask"}
    (one, other) = token_batches(LINES[1:], tokenizer, batch_size=2)
    short = min(batch["attention_mask"].sum(1).tolist() for batch in (one, other))[0]
    padded = one["input_ids"][one["attention_mask"] == 0]
    assert short < one["input_ids"].shape[1]
    assert (padded == tokenizer.pad_token_id).all()
    assert (one["attention_mask"].diff(dim=1) <= 0).all()


def test_conversations_are_written_by_the_chat_template(tokenizer) -> None:
    rows = [{"messages": chat, "text": "not this one"} for chat in CHATS]
    (batch,) = batches = token_batches(rows, tokenizer, responses_only=True)
    assert texts(batches, tokenizer) == [tokenizer.apply_chat_template(chat, tokenize=False) for chat in CHATS]
    in_loss = {"input_ids": batch["input_ids"], "attention_mask": batch["labels"] != -100}
    assert texts([in_loss], tokenizer) == [f"<|assistant|>{chat[1]['content']}<|end|>" for chat in CHATS]
    (plain,) = token_batches(rows, tokenizer)
    assert "labels" not in plain
    assert (plain["input_ids"] == batch["input_ids"]).all()
    (other,) = token_batches(rows, tokenizer, column="text")
    assert texts([other], tokenizer) == ["not this one"] * len(rows)


def test_llava_conversations_are_understood(tokenizer) -> None:
    turns = [{"from": "human", "value": "what is it?"}, {"from": "gpt", "value": "a ring"}]
    batches = token_batches([{"conversations": turns}], tokenizer, column="conversations")
    assert texts(batches, tokenizer) == ["<|begin|><|user|>what is it?<|end|><|assistant|>a ring<|end|>"]


def test_rows_that_cannot_be_used_are_counted(tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    asked = [{"role": "user", "content": "well?"}]
    image = [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "a ring"}]
    rows = [{"messages": chat} for chat in (CHATS[0], asked, [], None, CHATS[1], image)]
    batches = token_batches(rows, tokenizer)
    logging.enable_propagation()
    try:
        assert len(texts(batches, tokenizer)) == 2
    finally:
        logging.disable_propagation()
    assert batches.skipped == {"without a response that can be used": 2, "empty": 2}
    assert "4 rows of the given rows were skipped" in caplog.text
    lines = token_batches([{"text": text} for text in ("", "  ", None, "a ring")], tokenizer)
    assert texts(lines, tokenizer) == ["a ring"]
    assert lines.skipped == {"empty": 3}
    # A second pass counts anew.
    assert texts(lines, tokenizer) == ["a ring"]
    assert lines.skipped == {"empty": 3}


def test_bad_sources_are_refused_in_one_line(tmp_path: Path, tokenizer) -> None:
    with refused("split 'train' of .*/none cannot be opened.*check path, split and network"):
        token_batches(tmp_path / "none", tokenizer)
    Dataset.from_dict({"text": LINES}).save_to_disk(tmp_path / "saved")
    DatasetDict(train=Dataset.from_dict({"text": LINES})).save_to_disk(tmp_path / "splits")
    with refused("split 'test' of .*/splits cannot be opened"):
        token_batches(tmp_path / "splits", tokenizer, split="test")
    with refused("has no column 'caption'; its columns are text: set column"):
        list(token_batches(tmp_path / "saved", tokenizer, column="caption"))
    with refused("has no column 'text'; its columns are words"):
        list(token_batches([{"words": "a"}], tokenizer))
    with refused("the given rows has no row that can be used, 2 empty"):
        list(token_batches(["", " "], tokenizer))
    with refused("the given rows has no row that can be used, there is none"):
        list(token_batches([], tokenizer))
    with refused("holds texts, in which nothing is a response: leave responses_only out"):
        list(token_batches(LINES, tokenizer, responses_only=True))
    (tmp_path / "broken.jsonl").write_text('{"text": "a ring"}\n{"text": ')
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 cut short")
    for broken in ("broken.jsonl", "broken.parquet"):
        with refused(f"{broken} cannot be (read to its end|opened)"):
            list(token_batches(tmp_path / broken, tokenizer))
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    with refused("has no chat template"):
        list(token_batches([{"messages": CHATS[0]}], bare))


def test_real_captions(shared: Path, tokenizer) -> None:
    (batch,) = token_batches(shared / "data" / "caption-text", tokenizer, split="validation", max_samples=5)
    assert len(batch["input_ids"]) == 5
