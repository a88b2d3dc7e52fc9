"""Conversations are read from LLaVA-style files and from `datasets` rows, at once and as streams."""

from __future__ import annotations

import base64
import json
import os

import pytest
from datasets import Dataset, Features, Image, List, Value, concatenate_datasets

from hf_chain.data.chat import ChatDataSettings, ChatStream, load_chat, read_sample
from hf_chain.data.chat.encoder import ChatEncoder
from hf_chain.data.chat.llava import json_entries
from hf_chain.data.chat.rows import FEATURES, plain_messages
from hf_chain.data.streams import EndlessStream
from hf_chain.errors import HfChainError
from support.chat_models import tiny_vlm

QUESTION = [
    {"role": "user", "content": "<image>\nwhat is this?"},
    {"role": "assistant", "content": "red"},
]


@pytest.fixture
def llava(pictures, tmp_path):
    """Ten LLaVA entries: eight with an image, one with two, one with none."""
    turns = [{"from": "human", "value": "<image>\nwhat is this?"}, {"from": "gpt", "value": "red"}]
    entries = [{"id": number, "image": path.name, "conversations": turns} for number, path in enumerate(pictures)]
    two = [{"from": "human", "value": "<image> or <image>?"}, {"from": "gpt", "value": "two"}]
    entries.append({"id": "two", "image": [pictures[0].name, pictures[1].name], "conversations": two})
    entries.append({"id": "text", "conversations": [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}]})
    file = tmp_path / "llava.json"
    file.write_text(json.dumps(entries))
    return file


def settings_of(source, **options):
    return ChatDataSettings(source=str(source), **{"validation_split": None, **options})


def test_a_named_pipe_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(HfChainError, match="pipe.json cannot be read, it is a named pipe, no regular file"):
        load_chat(ChatDataSettings(source=str(tmp_path / "pipe.json"), validation_split=None))


def test_llava_files_are_read_with_their_images(llava, pictures):
    rows = load_chat(settings_of(llava, image_folder=str(pictures[0].parent)))["train"]
    assert rows.features == FEATURES and len(rows) == 10
    assert rows[0]["messages"] == QUESTION
    sample = read_sample(rows[8])
    assert [image.size for image in sample.images] == [(20, 16), (21, 16)]
    assert read_sample(rows[9]).images == []


def test_llava_json_lines_and_images_beside_them(llava, pictures):
    entries = json.loads(llava.read_text())
    file = pictures[0].parent / "llava.jsonl"
    entries[8]["images"] = entries[8].pop("image")
    file.write_text("\n".join(map(json.dumps, entries)) + "\n")
    rows = load_chat(settings_of(file))["train"]
    assert len(rows) == 10 and len(read_sample(rows[0]).images) == 1
    assert len(read_sample(rows[8]).images) == 2


def test_a_changed_file_is_read_anew(llava, pictures):
    settings = settings_of(llava, image_folder=str(pictures[0].parent))
    assert len(load_chat(settings)["train"]) == 10
    llava.write_text(json.dumps(json.loads(llava.read_text())[:4]))
    assert len(load_chat(settings)["train"]) == 4


def test_llava_splits_by_file_and_by_slice(llava):
    rows = load_chat(settings_of(llava, train_split="train[:80%]", validation_split="train[80%:]"))
    assert (len(rows["train"]), len(rows["validation"])) == (8, 2)
    assert rows["validation"][1]["messages"][0]["content"] == "a?"
    by_file = settings_of(llava, data_files={"train": str(llava), "held": str(llava)}, validation_split="held")
    assert len(load_chat(by_file)["validation"]) == 10
    with pytest.raises(HfChainError, match="split 'validation' is not in .*; it has train") as caught:
        load_chat(settings_of(llava, validation_split="validation"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "garbage", "binary"])
def test_a_damaged_llava_file_is_named_in_one_line(llava, damage):
    text = llava.read_text()
    damaged = {"cut": text[:-120].encode(), "garbage": text[:300].encode() + b" nonsense", "binary": b"[{\xff\xfe"}
    llava.write_bytes(damaged[damage])
    with pytest.raises(HfChainError, match="llava.json (is no JSON or cut short after|cannot be read)") as caught:
        load_chat(settings_of(llava))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", [{"id": 9}, None, 3, []])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_bad_first_entry_is_one_bad_row(tmp_path, first, streaming):
    turns = [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}]
    (tmp_path / "chat.json").write_text(json.dumps([first, {"conversations": turns}]))
    source = str(tmp_path / "chat.json")
    rows = list(load_chat(ChatDataSettings(source=source, validation_split=None, streaming=streaming))["train"])
    assert sorted(len(row["messages"]) for row in rows) == [0, 2]


@pytest.mark.parametrize("lines", [False, True])
def test_json_is_read_in_pieces_of_any_size(tmp_path, monkeypatch, lines):
    entries = [{"text": "ä" * number, "n": number, "nested": [{"a": "]}"}]} for number in range(40)]
    file = tmp_path / "entries.json"
    texts = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    file.write_text("\ufeff" + ("\n".join(texts) if lines else "[\n" + ",\n".join(texts) + "\n]\n"), encoding="utf-8")
    for chunk in (1, 7, 100, 1 << 20):
        monkeypatch.setattr("hf_chain.data.chat.llava._CHUNK", chunk)
        assert list(json_entries(file)) == entries


def stored(pictures, tmp_path, kind):
    """The same two rows, stored in one of the common ways; returns what to read them with."""
    typed = [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "what is this?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
    ]
    paths = [str(picture) for picture in pictures[:2]]
    if kind == "parquet":
        features = Features({"messages": FEATURES["messages"], "images": List(Image())})
        rows = Dataset.from_dict({"messages": [QUESTION] * 2, "images": [[path] for path in paths]}, features=features)
        rows.to_parquet(tmp_path / "rows.parquet")
        return {"source": tmp_path / "rows.parquet"}
    if kind == "typed":
        content = List({"type": Value("string"), "text": Value("string")})
        messages = List({"role": Value("string"), "content": content})
        features = Features({"chat": messages, "image": Image()})
        rows = Dataset.from_dict({"chat": [typed] * 2, "image": paths}, features=features)
        rows.to_parquet(tmp_path / "rows.parquet")
        return {"source": tmp_path / "rows.parquet", "messages_column": "chat", "images_column": "image"}
    if kind == "folder":
        features = Features({"messages": FEATURES["messages"], "images": List(Image())})
        rows = Dataset.from_dict({"messages": [QUESTION] * 2, "images": [[path] for path in paths]}, features=features)
        rows.save_to_disk(tmp_path / "saved")
        return {"source": tmp_path / "saved"}
    file = pictures[0].parent / "rows.jsonl"
    entries = [{"messages": QUESTION, "images": [picture.name]} for picture in pictures[:2]]
    file.write_text("\n".join(map(json.dumps, entries)))
    return {"source": file}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "typed", "jsonl", "folder"])
def test_stored_rows_of_every_kind_become_the_same(pictures, tmp_path, monkeypatch, kind, streaming):
    # After a parquet stream `datasets` sleeps for five seconds, to let threads end.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)
    rows = load_chat(settings_of(**stored(pictures, tmp_path, kind), streaming=streaming))["train"]
    found = sorted(rows, key=lambda row: read_sample(row).images[0].width)
    assert [row.keys() for row in found] == [FEATURES.keys()] * 2
    assert [row["messages"] for row in found] == [QUESTION] * 2
    assert [read_sample(row).images[0].width for row in found] == [20, 21]
    if not streaming:
        assert rows.features == FEATURES


def test_text_rows_mix_with_image_rows(pictures, tmp_path, llava):
    file = tmp_path / "text.jsonl"
    file.write_text(
        json.dumps({"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]})
    )
    text = load_chat(settings_of(file))["train"]
    images = load_chat(settings_of(llava, image_folder=str(pictures[0].parent)))["train"]
    mixed = concatenate_datasets([text, images])
    assert len(mixed) == 11 and read_sample(mixed[0]).images == [] and len(read_sample(mixed[1]).images) == 1


def test_a_column_that_is_missing_is_named(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"conversation": QUESTION}))
    with pytest.raises(HfChainError, match="messages_column 'messages' is not in .*; its columns are conversation"):
        load_chat(settings_of(file))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_training_subset_is_drawn_by_the_seed(llava, streaming):
    settings = settings_of(llava, max_train_samples=4, streaming=streaming)
    first, again, other = (list(load_chat(settings, seed=seed)["train"]) for seed in (0, 0, 1))
    assert len(first) == 4 and first == again != other


def test_a_stream_goes_on_where_it_stood(llava, pictures):
    settings = settings_of(llava, image_folder=str(pictures[0].parent), streaming=True, shuffle_buffer=1)
    _, processor = tiny_vlm()

    def stream():
        return ChatStream(load_chat(settings)["train"], ChatEncoder(processor))

    whole = [row["images"] for row in stream()]
    first = stream()
    rows = iter(first)
    begun = [next(rows)["images"] for _ in range(4)]
    second = stream()
    second.load_state_dict(first.state_dict())
    assert begun + [row["images"] for row in second] == whole


def test_an_endless_stream_goes_on_in_the_pass_where_it_stood(pictures, tmp_path):
    talks = [[{"from": "human", "value": f"is it {n}?"}, {"from": "gpt", "value": "yes"}] for n in range(6)]
    (tmp_path / "mix.json").write_text(json.dumps([{"conversations": talk} for talk in talks]))
    source = str(tmp_path / "mix.json")
    settings = ChatDataSettings(source=source, validation_split=None, streaming=True, shuffle_buffer=1)
    _, processor = tiny_vlm()

    def stream():
        return EndlessStream(ChatStream(load_chat(settings)["train"], ChatEncoder(processor)))

    def asked(rows, count):
        return [next(rows)["messages"][0]["content"] for _ in range(count)]

    first = stream()
    rows = iter(first)
    begun = asked(rows, 8)
    assert sorted(begun[:6]) == sorted(set(begun))
    second = stream()
    second.load_state_dict(first.state_dict())
    assert asked(iter(second), 8) == asked(rows, 8)


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        ([{"from": "human", "value": " a "}], [{"role": "user", "content": "a"}]),
        ([{"role": "assistant", "content": None}], [{"role": "assistant", "content": ""}]),
        ([{"role": "model", "content": [{"type": "text", "text": "b"}]}], [{"role": "assistant", "content": "b"}]),
        ([{"from": "gpt", "value": 3}], [{"role": "assistant", "content": "3"}]),
        ([{"role": "assistant", "content": [2.5, None, "m"]}], [{"role": "assistant", "content": "2.5\nm"}]),
        ([{"role": "user", "content": {"type": "text", "text": 0}}], [{"role": "user", "content": "0"}]),
        (
            [{"role": "user", "content": [{"index": 0, "type": "image", "text": None}, {"index": None, "text": "a"}]}],
            [{"role": "user", "content": "<image>\na"}],
        ),
        (
            [{"role": "user", "content": [{"type": "image", "text": None, "image": {"url": None}}, {"text": "a"}]}],
            [{"role": "user", "content": "<image>\na"}],
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a", "cache": 1}]}],
            [{"role": "user", "content": "a"}],
        ),
        (None, []),
        ("what?", []),
        (["what?"], []),
        (3, []),
    ],
)
def test_conversations_of_any_form(value, messages):
    assert plain_messages(value) == messages


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "image", "image": "cat.png"}],
        [{"type": "image", "image": {"bytes": b"...", "path": None}}],
        [{"type": "image", "path": "cats/1"}],
        [{"type": "image", "url": "https://somewhere/cat"}],
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}],
        [{"type": "input_image", "image_url": "https://somewhere/cat"}],
        [{"type": "text", "text": "what is this?", "image": "cat.png"}],
        [{"type": "text", "text": "what is this?"}, {"type": "video", "video": "cat.mp4"}],
        [{"type": "tool_call", "text": "look"}],
        {"type": "image", "source": {"data": "iVBO"}},
        {"source": "cat.png"},
        [{"words": "what is this?"}],
        [["cat.png"]],
        True,
        b"cat",
    ],
)
def test_a_part_that_is_not_read_is_named_in_one_line(content):
    with pytest.raises(HfChainError, match="a message holds .*, which is not read: write text, numbers, or") as caught:
        plain_messages([{"role": "user", "content": content}])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "more",
    [
        {"images": ["photos/red.png"]},
        {"image": "photos/red"},
        {"attachment": {"image_url": {"url": "https://somewhere/1"}}},
        {"picture": base64.b64encode(b"\x89PNG\r\n\x1a\n and more").decode()},
        {"tool_calls": [{"name": "look"}]},
    ],
)
def test_what_stands_beside_a_content_and_is_not_read_is_named(tmp_path, more):
    (name,) = more
    row = {"messages": [QUESTION[0] | more, {"role": "assistant", "content": "b"}]}
    file = tmp_path / "rows.jsonl"
    with pytest.raises(HfChainError, match=f"a message has {name!r}, .* which is not read"):
        plain_messages(row["messages"])
    file.write_text(json.dumps(row))
    with pytest.raises(HfChainError, match=f"a message has {name!r}, .* which is not read"):
        load_chat(settings_of(file))
    fine = [QUESTION[0] | {"images": [], "image": None, "weight": 1, "name": "Ann"}]
    assert plain_messages(fine) == plain_messages(QUESTION[:1])


def test_an_image_far_behind_rows_without_one_is_named(tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [{"messages": QUESTION, "where": ""}] * 500 + [{"messages": QUESTION, "where": "red.png"}]
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(HfChainError, match="column 'where' of .*'red.png', and is not read"):
        load_chat(settings_of(file))


UNREAD = {
    "image": ("red.png", {"image": "photos/red.png"}),
    "images of another name": ("photos/2", {"picture": ["photos/1", "photos/2"]}),
    "address": ("https", {"img_url": "https://somewhere/1?size=3"}),
    "any name": ("red.JPG", {"where": "red.JPG"}),
    "dictionary": ("holds images", {"photo": {"bytes": "aGVsbG8=", "path": "somewhere/1"}}),
    "base64": (r"/9j/", {"frame": base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(99)).decode()}),
    "data": ("data:image", {"input": "data:image/png;base64,iVBO"}),
    "pixels": ("255", {"pixel_values": [[255, 0], [0, 255]]}),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("case", UNREAD)
def test_a_column_that_looks_like_an_image_and_is_not_read_is_named(tmp_path, case, streaming):
    value, more = UNREAD[case]
    (name,) = more
    file = tmp_path / "rows.jsonl"
    rows = [{"messages": QUESTION[:1] + [{"role": "assistant", "content": "b"}], "nothing": None, **more}] * 3
    file.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(HfChainError, match=f"column {name!r} of .*{value}.* is not read, as images come") as caught:
        list(load_chat(settings_of(file, streaming=streaming))["train"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("listed", [False, True])
def test_a_column_of_images_beside_the_one_that_is_read_is_named(pictures, tmp_path, listed, streaming, monkeypatch):
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)
    kind = List(Image()) if listed else Image()
    features = Features({"messages": FEATURES["messages"], "images": List(Image()), "second": kind})
    path = str(pictures[0])
    columns = {"messages": [QUESTION], "images": [[path]], "second": [[path] if listed else path]}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(HfChainError, match="column 'second' of .* holds images and is not read"):
        load_chat(settings_of(tmp_path / "rows.parquet", streaming=streaming))


@pytest.mark.parametrize("streaming", [False, True])
def test_words_about_images_are_no_images(tmp_path, streaming):
    """Nor are names of files beside images that are read."""
    about = {
        "id": "red.png",
        "image_id": "000123",
        "num_images": 2,
        "image_caption": "a cat and/or a dog",
        "note": "this was asked about the file red.png",
        "sizes": [1, 2],
    }
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": QUESTION, **about}))
    assert len(list(load_chat(settings_of(file, streaming=streaming))["train"])) == 1
    file.write_text(json.dumps({"messages": QUESTION, "images": ["red.png"], "file_name": "red.png"}))
    assert len(list(load_chat(settings_of(file, streaming=streaming))["train"])) == 1


@pytest.mark.parametrize("streaming", [False, True])
def test_an_entry_of_llava_with_an_image_that_is_not_read_is_named(tmp_path, streaming):
    file = tmp_path / "llava.json"
    turns = [{"from": "human", "value": "a?"}, {"from": "gpt", "value": 3}]
    for more, problem in (
        ({"picture": "red.png"}, "column 'picture' of .*llava.json looks like an image, 'red.png', and is not read"),
        ({"image": "a.png", "images": ["b.png"]}, "has an entry with image and images"),
    ):
        file.write_text(json.dumps([{"conversations": turns}, {"conversations": turns, **more}]))
        with pytest.raises(HfChainError, match=problem):
            list(load_chat(settings_of(file, streaming=streaming))["train"])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("value", [3, True, ["red.png", 3], [["red.png"]], [[[0, 1]]], {"bytes": [1]}, {"path": 3}])
def test_what_is_no_image_is_named_in_one_line(tmp_path, value, streaming):
    file = tmp_path / "llava.json"
    file.write_text(json.dumps([{"image": value, "conversations": [{"from": "human", "value": "<image>"}]}]))
    with pytest.raises(HfChainError, match="stands for an image and is none: give a path, the bytes") as caught:
        list(load_chat(settings_of(file, streaming=streaming))["train"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("value", [3, True, [["red.png"]], {"bytes": [1]}])
def test_a_column_that_holds_no_images_is_named_in_one_line(tmp_path, value, streaming):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": QUESTION, "images": value}))
    with pytest.raises(HfChainError, match="stands for an image and is none: give a path, the bytes") as caught:
        list(load_chat(settings_of(file, streaming=streaming))["train"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, "", [], [None], [""], {"path": None, "bytes": None}])
def test_a_row_without_an_image_may_say_so_in_many_ways(tmp_path, value):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"messages": QUESTION, "images": value}))
    (row,) = load_chat(settings_of(file))["train"]
    assert row["images"] == []


@pytest.mark.parametrize("form", ["dictionary", "bytes", "both", "list"])
def test_an_image_may_be_a_dictionary(pictures, tmp_path, form):
    """With a path that starts where the file is, or with the bytes of the file."""
    encoded = pictures[0].read_bytes()
    value = {
        "dictionary": {"path": pictures[0].name},
        "bytes": {"bytes": encoded},
        "both": {"bytes": encoded, "path": "is not looked for"},
        "list": [{"path": pictures[0].name, "bytes": None}],
    }[form]
    row = {"messages": QUESTION, "images": value, "answers": 3}
    Dataset.from_list([row]).to_parquet(pictures[0].parent / f"{form}.parquet")
    (found,) = load_chat(settings_of(pictures[0].parent / f"{form}.parquet"))["train"]
    assert [image.width for image in read_sample(found).images] == [20] and found["answers"] == ["3"]
    if form == "dictionary":
        turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": 3}]
        file = pictures[0].parent / "llava.json"
        file.write_text(json.dumps([{"image": value, "conversations": turns}]))
        (found,) = load_chat(settings_of(file))["train"]
        assert read_sample(found).images[0].width == 20 and found["messages"][1]["content"] == "3"


def test_a_row_in_memory_whose_image_is_not_read_is_refused(pictures):
    with pytest.raises(HfChainError, match="column 'image' of the row looks like an image"):
        read_sample({"messages": QUESTION, "image": str(pictures[0])})
