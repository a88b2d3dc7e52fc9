"""Folders and files are taken by their names, whatever characters these have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image

from hf_chain.data import DataSettings, load_splits
from hf_chain.data.chat.settings import ChatDataSettings
from hf_chain.data.chat.sources import load_chat
from hf_chain.data.text import stream_rows
from hf_chain.errors import HfChainError
from hf_chain.files import as_pattern

NAMES = ["set[1]", "[!a]", "a*b", "who?", "{x,y}", "closed]", "100% #1 ~"]


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with such a name, beside others that its name would match as a pattern."""
    for decoy in ("set1", "b", "aXb", "whom", "x"):
        (tmp_path / decoy).mkdir()
        (tmp_path / decoy / "train.jsonl").write_text('{"text": "of another folder"}\n' * 5)
    folder = tmp_path / request.param
    folder.mkdir()
    return folder


def write_rows(path: Path, number: int = 3) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("".join(json.dumps({"text": f"row {row}"}) + "\n" for row in range(number)))
    return path


def texts(rows: Any) -> list[str]:
    # A stream is shuffled.
    return sorted(row["text"] for row in rows)


def loaded(source: Path | str, **options: Any) -> Any:
    settings = {"validation_split": None, "caption_column": "text", "image_column": "text_image", **options}
    return load_splits(DataSettings(source=str(source), **settings))["train"]


ROWS = ["row 0", "row 1", "row 2"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_file_a_pattern_in_a_folder_and_named_files_are_found(folder: Path, streaming: bool) -> None:
    file = write_rows(folder / "train [1].jsonl")
    for source, files in (
        (file, None),
        (folder / "*.jsonl", None),
        ("json", str(file)),
        ("json", {"train": [str(folder / "train*.jsonl")]}),
        (folder, "train [1].jsonl"),
    ):
        assert texts(loaded(source, data_files=files, streaming=streaming)) == ROWS


def test_names_are_literal_in_the_folder_one_works_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(folder / "deep [x]" / "train.jsonl")
    monkeypatch.chdir(folder)
    for source in ("deep [x]/train.jsonl", "./deep [x]/*.jsonl", "**/train.jsonl"):
        assert texts(loaded(source)) == ROWS


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_brings_its_splits(folder: Path, streaming: bool) -> None:
    write_rows(folder / "train.jsonl")
    write_rows(folder / "validation.jsonl", 2)
    assert texts(loaded(folder, streaming=streaming)) == ROWS
    assert texts(loaded(folder, train_split="validation", streaming=streaming)) == ROWS[:2]
    assert texts(stream_rows(folder, "train")) == ROWS
    assert texts(stream_rows(folder / "validation.jsonl", "train")) == ROWS[:2]


def test_configurations_of_a_folder_with_such_a_name_are_not_passed_over(tmp_path: Path) -> None:
    write_rows(tmp_path / "set[1]" / "train.jsonl")
    (tmp_path / "set[1]" / "README.md").write_text("---\nconfigs:\n- config_name: a\n  data_files: b.jsonl\n---\n")
    with pytest.raises(HfChainError, match="has configurations, and .* in its full name: rename the folder"):
        loaded(tmp_path / "set[1]")


def test_a_folder_of_images_and_one_that_was_saved_are_found(folder: Path) -> None:
    (folder / "images" / "train").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(folder / "images" / "train" / "red[1].png")
    (folder / "images" / "train" / "metadata.csv").write_text("file_name,text\nred[1].png,a red square\n")
    row = loaded(folder / "images", image_column="image")[0]
    assert row["text"] == "a red square" and row["image"].getpixel((0, 0)) == (255, 0, 0)
    Dataset.from_dict({"text": ROWS}).save_to_disk(folder / "saved")
    assert texts(loaded(folder / "saved")) == ROWS
    assert texts(stream_rows(folder / "saved", "train")) == ROWS


@pytest.mark.parametrize("streaming", [False, True])
def test_llava_conversations_and_their_images_are_found(folder: Path, streaming: bool) -> None:
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A square."}]
    (folder / "chat [a].json").write_text(json.dumps([{"image": "red.png", "conversations": turns}]))
    for file in (folder / "chat [a].json", folder / "*.json"):
        settings = ChatDataSettings(
            source=str(file), image_folder=str(folder), validation_split=None, streaming=streaming
        )
        row = next(iter(load_chat(settings)["train"]))
        assert [image["path"] for image in row["images"]] == [str(folder / "red.png")]
        assert row["messages"][1]["content"] == "A square."


def test_backslashes_get_an_error_that_says_so(tmp_path: Path) -> None:
    said = r"C:\\data\\set has backslashes, which separate no folders here: write C:/data/set"
    for make in (
        lambda: DataSettings(source=r"C:\data\set", caption_column="text"),
        lambda: DataSettings(source="json", data_files={"train": [r"C:\data\set"]}, caption_column="text"),
        lambda: ChatDataSettings(source="chat.json", image_folder=r"C:\data\set"),
        lambda: as_pattern(r"C:\data\set"),
    ):
        with pytest.raises(ValueError, match=said):
            make()


def test_a_name_that_cannot_be_escaped_is_refused(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "x::y" / "train.jsonl")
    with pytest.raises(HfChainError, match="has '::' in its full name, .*: rename the folder"):
        loaded(file)
