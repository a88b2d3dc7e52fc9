"""Conversations about images: odd messages, odd columns, images that do not fit."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import Case, graft_recipe

ROWS = 20


def _talk(answer: Any = "it is red", question: Any = "<image>\nwhat is it?") -> dict[str, Any]:
    return {"messages": [_said("user", question), _said("assistant", answer)], "images": ["red.png"]}


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _turns(*messages: dict[str, Any], images: Any = ("red.png",)) -> dict[str, Any]:
    return {"messages": list(messages), "images": list(images)}


ASKED = _said("user", "<image>\nwhat is it?")
DROPPED: list[tuple[str, dict[str, Any], str]] = [
    ("no messages", _turns(), "no messages"),
    ("no response", _turns(ASKED), "response"),
    ("an empty response", _talk(""), "response"),
    ("a response of spaces", _talk(" \n "), "response"),
    (
        "the last question without a response",
        _turns(ASKED, _said("assistant", "red"), _said("user", "why?")),
        "response",
    ),
    ("a role nobody knows", _turns(ASKED, _said("tool", "3"), _said("assistant", "red")), "tool"),
    ("a role that is empty", _turns(_said("", "<image> what?"), _said("assistant", "red")), "role"),
    ("two placeholders and one image", _talk(question="<image><image> which?"), "image"),
    ("no placeholder and one image", _talk(question="what is it?"), "image"),
    ("a placeholder and no image", _talk() | {"images": []}, "image"),
    ("a placeholder in the response", _talk(answer="<image> is red"), "image"),
    ("an image that is not there", _talk() | {"images": ["gone.png"]}, "gone.png"),
    ("an image that is a text", _talk() | {"images": ["rows.jsonl"]}, "rows.jsonl"),
    ("an image that is a folder", _talk() | {"images": ["folder"]}, "folder"),
    ("an image that is nothing", _talk() | {"images": [None]}, "image"),
    ("an empty question", _turns(_said("user", ""), _said("assistant", "red"), images=()), "empty"),
]
"""One row of twenty; it has to be left out, or to be named where it can be used."""

RIGHT: list[tuple[str, Callable[[int], dict[str, Any]]]] = [
    ("messages of LLaVA", lambda n: {"conversations": _llava("<image>\nwhat is it?", "red"), "image": "red.png"}),
    ("a system message", lambda n: _turns(_said("system", "be brief"), ASKED, _said("assistant", "red"))),
    (
        "several turns",
        lambda n: _turns(ASKED, _said("assistant", "red"), _said("user", "and?"), _said("assistant", "no")),
    ),
    ("text alone", lambda n: _turns(_said("user", "one and one?"), _said("assistant", "two"), images=())),
    ("typed parts", lambda n: _typed({"type": "image"}, {"type": "text", "text": "what is it?"})),
    ("answers in many scripts", lambda n: _talk("Ein Bär 熊 🐻 دب")),
    ("the mark of the end in an answer", lambda n: _talk("it is </s> red")),
]
"""All rows, which have to be read."""

COLUMNS: list[tuple[str, Callable[[int], dict[str, Any]], str, str]] = [
    ("`image` in place of `images`", lambda n: _renamed("image"), "refused", "image"),
    ("`image` with one path", lambda n: _renamed("image", "red.png"), "refused", "image"),
    ("`picture` with a picture's bytes", lambda n: _renamed("picture", _inline()), "refused", "picture"),
    ("`photo` in place of `images`", lambda n: _renamed("photo", "red.png"), "refused", "photo"),
    ("`conversation` in place of `messages`", lambda n: _messages_as("conversation"), "refused", "messages"),
    ("a part with its own image", lambda n: _typed_alone({"type": "image", "image": "red.png"}), "refused", "image"),
    (
        "a part with an image's address",
        lambda n: _typed_alone({"type": "image", "url": "red.png"}),
        "refused",
        "image|url",
    ),
    (
        "a part with an image's path",
        lambda n: _typed_alone({"type": "image", "path": "red.png"}),
        "refused",
        "image|path",
    ),
    (
        "a part as OpenAI writes it",
        lambda n: _typed_alone({"type": "image_url", "image_url": {"url": "red.png"}}),
        "refused",
        "image_url",
    ),
    ("a part with a film", lambda n: _typed_alone({"type": "video", "video": "film.mp4"}), "refused", "video"),
    ("a part with sound", lambda n: _typed_alone({"type": "audio", "audio": "sound.wav"}), "refused", "audio"),
    ("messages as one text", lambda n: {"messages": "what is it? red", "images": ["red.png"]}, "refused", "message"),
    (
        "messages as JSON in a text",
        lambda n: _talk() | {"messages": json.dumps(_talk()["messages"])},
        "refused/right",
        "messag",
    ),
    ("messages that are numbers", lambda n: {"messages": [1, 2], "images": ["red.png"]}, "refused", "message"),
    (
        "questions and answers in columns",
        lambda n: {"question": "what?", "answer": "red", "image": "red.png"},
        "refused",
        "messages|question|image",
    ),
    (
        "messages without roles",
        lambda n: {"messages": [{"content": "a"}, {"content": "b"}], "images": []},
        "refused",
        "role",
    ),
    ("images that are numbers", lambda n: _talk() | {"images": [7]}, "refused", "image"),
]
"""All rows, in which something is not read."""

ANSWERS: list[tuple[str, Callable[[int], dict[str, Any]], str]] = [
    ("a number as an answer", lambda n: _talk(4), "4"),
    ("a fraction as an answer", lambda n: _talk(2.5), "2.5"),
    ("an image as a mapping of bytes", lambda n: _talk() | {"images": [_inline()]}, "it is red"),
    ("one image as a mapping, not in a list", lambda n: _talk() | {"images": _inline()}, "it is red"),
    ("one image as a path, not in a list", lambda n: _talk() | {"images": "red.png"}, "it is red"),
]
"""All rows: read just so, or refused."""

FILES: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "rows.json"),
    ("a mapping", b'{"a": 1}', "rows.json"),
    ("JSON cut short", b'[{"messages": [', "rows.json"),
    ("a page of the web", b"<html></html>", "rows.json"),
    ("an empty list", b"[]", "rows.json"),
    ("a list of numbers", b"[1, 2, 3]", "rows.json"),
    ("bytes", bytes(range(256)), "rows.json"),
]


def cases() -> Iterator[Case]:
    """All of this table."""
    for name, row, words in DROPPED:
        yield Case("conversations", name, "dropped", words, write=_rows(lambda n, row=row: row if n == 3 else _talk()))
    for name, make in RIGHT:
        yield Case("conversations", name, "right", write=_rows(make))
    for name, make, expects, words in COLUMNS:
        yield Case("conversations", name, expects, words, write=_rows(make))
    for name, make, answer in ANSWERS:
        yield Case(
            "conversations", name, "right/refused", "image|answer|message", write=_rows(make), check=_reads(answer)
        )
    for name, content, words in FILES:
        yield Case("conversations", f"a file of {name}", "refused", words, write=_file(content))


def _llava(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def _typed(*parts: dict[str, Any]) -> dict[str, Any]:
    return _turns(_said("user", list(parts)), _said("assistant", [{"type": "text", "text": "red"}]))


def _typed_alone(part: dict[str, Any]) -> dict[str, Any]:
    row = _typed(part, {"type": "text", "text": "what is it?"})
    return {"messages": row["messages"]}


def _renamed(column: str, value: Any = None) -> dict[str, Any]:
    row = _talk(question="what is it?")
    return {"messages": row["messages"], column: row["images"] if value is None else value}


def _messages_as(column: str) -> dict[str, Any]:
    row = _talk()
    return {column: row["messages"], "images": row["images"]}


def _inline() -> dict[str, Any]:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (20, 16), "red").save(file, "png")
    return {"bytes": base64.b64encode(file.getvalue()).decode(), "path": None}


def _rows(make: Callable[[int], dict[str, Any]]) -> Callable[[Path], None]:
    """Rows as a parquet file with bytes where they hold some, else as JSON or as LLaVA's."""

    def write(folder: Path) -> None:
        rows = [make(number) for number in range(ROWS)]
        _finish(folder, "rows.json" if "conversations" in rows[0] else "rows.jsonl")
        if "conversations" in rows[0]:
            (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        elif '"bytes"' in json.dumps(rows[0]):
            _write_parquet(folder, rows)
        else:
            (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    return write


def _write_parquet(folder: Path, rows: list[dict[str, Any]]) -> None:
    from datasets import Dataset

    def with_bytes(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("bytes"), str):
            return value | {"bytes": base64.b64decode(value["bytes"])}
        return [with_bytes(one) for one in value] if isinstance(value, list) else value

    decoded = [{name: with_bytes(value) for name, value in row.items()} for row in rows]
    Dataset.from_list(decoded).to_parquet(folder / "rows.parquet")
    _finish(folder, "rows.parquet")


def _file(content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        _finish(folder, "rows.json")
        (folder / "rows.json").write_bytes(content)

    return write


def _finish(folder: Path, source: str) -> None:
    from PIL import Image

    Image.new("RGB", (20, 16), "red").save(folder / "red.png")
    (folder / "folder").mkdir(exist_ok=True)
    data = {"source": source, "validation_split": "train", "max_bad_share": 0.5}
    graft_recipe({"data": {"images": data}})(folder)


def _reads(answer: str) -> Callable[[Path], None]:
    """What was asked about has this answer, and an image where there was one."""

    def check(folder: Path) -> None:
        found = json.loads((folder / "runs" / "graft" / "01-join" / "answers.json").read_text(encoding="utf-8"))
        first = next(iter(found.values()))[0]
        if first["expected"] != [answer] or "<image>" not in first["question"]:
            raise ValueError(f"{first['question']!r} expects {first['expected']}, not {answer!r}")

    return check
