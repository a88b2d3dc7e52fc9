"""Packed rows hold the documents of a split, each token once, whoever reads them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, load_dataset
from transformers import AutoTokenizer

from hf_chain.data import (
    PackedTextDataset,
    PackedTextStream,
    TextSettings,
    collate_rows,
    load_splits,
    text_rows,
    train_text_tokenizer,
)
from hf_chain.data.fingerprint import difference, fingerprint_texts
from hf_chain.data.streams import LanedStream
from hf_chain.errors import HfChainError

TEXTS = [f"Chapter {number}: the {'old ' * (number % 5)}ship sailed north – žluťoučký kůň 🙂." for number in range(40)]
TOKENIZER = train_text_tokenizer(TEXTS, 300)
LENGTH = 16


def settings(source: object = "books", **options: object) -> TextSettings:
    return TextSettings(**{"source": str(source), "row_tokens": LENGTH, "validation_split": None} | options)  # type: ignore[arg-type]


def packed(texts: list[str | None] = TEXTS, **options: object) -> PackedTextDataset:
    return PackedTextDataset(Dataset.from_dict({"text": texts}), settings(**options), TOKENIZER)


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., TextSettings]:
    """Writes so many files of documents."""

    def write(number: int, **options: object) -> TextSettings:
        for file in range(number):
            Dataset.from_dict({"text": TEXTS[file::number]}).to_json(tmp_path / f"{file}.jsonl")
        return settings(tmp_path / "*.jsonl", **options)

    return write


def test_rows_hold_every_token_of_the_documents_in_their_order() -> None:
    rows = packed([TEXTS[0], None, "", *TEXTS[1:]])
    tokens = torch.cat([row["input_ids"] for row in rows])
    assert tokens.dtype == torch.int64 and len(tokens) == len(rows) * LENGTH
    text = TOKENIZER.eos_token.join(TEXTS) + TOKENIZER.eos_token
    assert text.startswith(TOKENIZER.decode(tokens, errors="ignore").rstrip("�"))
    left = TOKENIZER(text)["input_ids"][len(tokens) :]
    assert 0 <= len(left) < LENGTH
    assert [int(row["row_ids"]) for row in rows] == list(range(len(rows)))
    batch = collate_rows([rows[3], rows[5]])
    assert batch["input_ids"].shape == (2, LENGTH) and batch["row_ids"].tolist() == [3, 5]


def test_documents_are_tokenized_once_and_read_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed()
    monkeypatch.setattr(text_rows, "tokenized", lambda *_: pytest.fail("tokenized again"))
    TOKENIZER(["a", "b c"], padding=True, truncation=True, max_length=1)
    again = packed()
    assert again.fingerprint == first.fingerprint and isinstance(again.tokens, np.memmap)
    assert len(pickle.dumps(again)) < 10_000
    assert torch.equal(pickle.loads(pickle.dumps(again))[2]["input_ids"], first[2]["input_ids"])
    monkeypatch.undo()
    assert len({packed(row_tokens=8).fingerprint, packed(TEXTS[1:]).fingerprint, first.fingerprint}) == 3


def test_a_part_of_the_rows_holds_documents_in_an_order_of_the_seed(files: Callable[..., TextSettings]) -> None:
    chosen = files(2, max_train_samples=7)
    one, other = (PackedTextDataset(load_splits(chosen, seed)["train"], chosen, TOKENIZER) for seed in (0, 1))
    assert len(one) == len(other) == 7 and one.fingerprint != other.fingerprint
    assert len(PackedTextDataset(load_splits(chosen)["train"], chosen, TOKENIZER, training=False)) > 7


def test_a_stream_holds_the_same_rows_and_goes_on_where_it_stopped(files: Callable[..., TextSettings]) -> None:
    streamed = files(1, streaming=True, shuffle_buffer=1)
    rows = PackedTextDataset(load_dataset("json", data_files=streamed.source)["train"], streamed, TOKENIZER)

    def begun() -> PackedTextStream:
        return PackedTextStream(load_splits(streamed)["train"], streamed, TOKENIZER)

    stream = begun()
    whole = [row["input_ids"].tolist() for row in stream]
    assert whole == [row["input_ids"].tolist() for row in rows]
    for stop in (1, 5, len(whole) - 1):
        seen = [row["input_ids"].tolist() for row in islice(iter(stream), stop)]
        resumed = begun()
        resumed.load_state_dict(stream.state_dict())
        assert seen + [row["input_ids"].tolist() for row in resumed] == whole


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_a_stream_by_lanes(files: Callable[..., TextSettings], processes: int) -> None:
    streamed, batch = files(6, streaming=True, shuffle_buffer=4), 12

    def read(mine: range) -> list[list[int] | None]:
        stream = LanedStream(PackedTextStream(load_splits(streamed)["train"], streamed, TOKENIZER), batch, mine)
        return [row and row["input_ids"].tolist() for row in islice(stream, 10 * batch)]

    alone, share = read(range(batch)), batch // processes
    for process in range(processes):
        mine = range(process * share, (process + 1) * share)
        used = [row for place, row in enumerate(read(mine)) if place % batch in mine]
        assert used == [row for place, row in enumerate(alone) if place % batch in mine]


@pytest.mark.parametrize(("sample_by", "documents"), [("line", 4), ("paragraph", 3), ("document", 2)])
def test_text_files_are_cut_as_the_settings_say(sample_by: str, documents: int, tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text("one\ntwo\n\nthree\n")
    (tmp_path / "2.txt").write_text("four\n")
    for source in (tmp_path / "*.txt", tmp_path):
        rows = load_splits(settings(source, sample_by=sample_by))["train"]
        assert len([text for text in rows["text"] if text]) == documents
        assert "\n".join(rows["text"]).split() == ["one", "two", "three", "four"]


def test_what_is_no_text_is_refused_by_name() -> None:
    numbers = Dataset.from_dict({"text": [1, 2]})
    with pytest.raises(HfChainError, match="^document 0 of books is a int, no text: set text_column$"):
        PackedTextDataset(numbers, settings(), TOKENIZER)
    with pytest.raises(HfChainError, match="^text_column 'body' is not in books; its columns are text: set"):
        packed(text_column="body")
    with pytest.raises(HfChainError, match="^the documents of books fill no row of 100000 tokens"):
        packed(row_tokens=100_000)
    with pytest.raises(ValueError, match="max_train_samples is set for a stream"):
        settings(streaming=True, max_train_samples=3)
    with pytest.raises(ValueError, match="streaming is true for source 'stories'"):
        settings("stories", streaming=True)


def test_a_run_knows_its_texts_again(files: Callable[..., TextSettings]) -> None:
    chosen = files(1)
    rows = load_splits(chosen)["train"]
    before = fingerprint_texts(rows, chosen, "train")
    assert fingerprint_texts(rows, chosen, "train") == before
    other = rows.map(lambda row: {"text": row["text"].replace("ship", "boat")})
    words = difference(before, fingerprint_texts(other, chosen, "train"))
    assert words == "captions, labels, conversations or texts differ"


def test_a_tokenizer_writes_any_text_and_loads_without_us(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*TEXTS[:3], " two  spaces\n\tand tabs", "猫"):
        assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.eos_token == loaded.bos_token == loaded.pad_token == "<|endoftext|>"
    assert loaded.eos_token_id == 0 and len(loaded) == 300
    assert train_text_tokenizer(TEXTS, 300).get_vocab() == loaded.get_vocab()
    with pytest.raises(HfChainError, match="^vocab_size is 256; bytes and marks alone need 257$"):
        train_text_tokenizer(TEXTS, 256)
    with pytest.raises(HfChainError, match="no text to learn from; check text_column"):
        train_text_tokenizer([], 300)


def test_settings_of_texts_start_no_torch() -> None:
    code = "import sys; from hf_chain.data import TextSettings; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
