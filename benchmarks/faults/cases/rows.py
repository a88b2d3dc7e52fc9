"""Rows of image and text: one odd cell in a data set that is trained on, and in one that `hf-chain eval` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import BASE, Case, chain_recipe
from cases.base import write_pictures

EVAL = ("eval", f"{BASE}/clip", "--recipe", "recipe.yaml")

DROPPED: list[tuple[str, dict[str, Any], str]] = [
    ("no caption", {"text": None}, "caption 0 is None"),
    ("an empty caption", {"text": ""}, "caption 0 is empty"),
    ("a caption of spaces", {"text": " \n\t "}, "caption 0 is empty"),
    ("no label", {"label": None}, "label None"),
    ("a negative label", {"label": -1}, "label -1"),
    ("a label beyond the classes", {"label": 77}, "label 77"),
    ("half a label", {"label": 1.5}, "label 1.5"),
    ("a label beyond all numbers", {"label": 1e300}, "label 1e"),
    ("no image", {"image": None}, "image"),
    ("an image that is not there", {"image": "gone.png"}, "gone.png"),
    ("an image without a name", {"image": ""}, "image"),
    ("an image that is a folder", {"image": "folder"}, "folder"),
    ("an image that is a text", {"image": "train.jsonl"}, "train.jsonl"),
    ("an image above the folder", {"image": "../../../etc/passwd"}, "passwd"),
    ("an image of the network", {"image": "http://127.0.0.1:9/x.png"}, "127.0.0.1|image"),
    ("an image with a NUL in its name", {"image": "a\0b.png"}, "image"),
    ("an image of endless zeros", {"image": "/dev/zero"}, "zero|image"),
    ("a picture's bytes in Base64", {"image": "data:image/png;base64,iVBORw0KGgo="}, "image"),
]
"""One row of twenty; it has to be left out, with this reason, by the run and by `hf-chain eval` alike."""

RIGHT: list[tuple[str, dict[str, Any]]] = [
    ("a caption of a hundred thousand letters", {"text": "long " * 20_000}),
    ("a caption with a NUL", {"text": "a\0b"}),
    ("a caption in many scripts", {"text": "Ein Bär 熊 🐻 دب"}),
    ("a whole label as a fraction", {"label": 1.0}),
    ("a caption that is a list written as text", {"text": '["a dog", "a hound"]'}),
    ("a caption with brackets", {"text": "[blurred] a dog"}),
    ("a caption with braces", {"text": "a {} of {thing}"}),
]

COLUMNS: list[tuple[str, Callable[[int], dict[str, Any]], dict[str, Any], str, str]] = [
    ("labels of true and false", lambda n: {"label": bool(n % 2)}, {}, "right/refused", "label"),
    ("labels that are names", lambda n: {"label": ("cat", "dog")[n % 2]}, {}, "refused", "label"),
    ("labels that are digits as text", lambda n: {"label": str(n % 2)}, {}, "refused", "label"),
    ("labels that are lists", lambda n: {"label": [n % 2]}, {}, "refused", "label"),
    ("labels that are mappings", lambda n: {"label": {"id": n % 2}}, {}, "refused", "label"),
    ("labels that are all missing", lambda n: {"label": None}, {}, "refused", "label"),
    ("labels from one on", lambda n: {"label": 1 + n % 2}, {}, "dropped", "label 2"),
    ("captions that are numbers", lambda n: {"text": n}, {}, "refused", "caption"),
    ("captions that are true", lambda n: {"text": True}, {}, "refused", "caption"),
    ("captions that are mappings", lambda n: {"text": {"en": "a dog"}}, {}, "refused", "caption"),
    ("captions that are empty lists", lambda n: {"text": []}, {}, "refused", "captions"),
    ("captions of lists in lists", lambda n: {"text": [["a dog"]]}, {}, "refused", "caption"),
    ("captions that are all the same", lambda n: {"text": "a picture"}, {}, "warned", "caption"),
    ("images that are numbers", lambda n: {"image": n}, {}, "refused", "image"),
    ("images that are lists", lambda n: {"image": [f"{n:02d}.png"]}, {}, "refused/right", "image"),
    ("images that are mappings of nothing", lambda n: {"image": {"url": "x"}}, {}, "refused", "image"),
    ("columns of another name", lambda n: {}, {"data.image_column": "picture"}, "refused", "picture"),
    ("a caption column of another name", lambda n: {}, {"data.caption_column": "captions"}, "refused", "captions"),
    ("a label column of another name", lambda n: {}, {"data.label_column": "class"}, "refused", "class"),
    ("one class name", lambda n: {}, {"data.class_names": ["cat"]}, "dropped", "label 1"),
    ("a class without a name", lambda n: {}, {"data.class_names": ["cat", ""]}, "refused", "name"),
    ("two classes of one name", lambda n: {}, {"data.class_names": ["cat", "cat"]}, "refused/warned", "cat"),
    ("no label column for names", lambda n: {}, {"data.label_column": None}, "refused/right", "label_column"),
]
"""All rows are odd: what cannot be read is refused by the column's name or counted."""

FILES: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "train.jsonl"),
    ("an empty line", b"\n", "train.jsonl"),
    ("JSON cut short", b'{"image": "00.png", "text": "a', "train.jsonl"),
    ("a page of the web", b"<html><body>404</body></html>", "train.jsonl"),
    ("bytes", bytes(range(256)), "train.jsonl"),
    ("rows without columns", b"{}\n{}\n", "train.jsonl|column"),
    ("numbers", b"1\n2\n", "train.jsonl"),
]

SOURCES: list[tuple[str, dict[str, Any], str]] = [
    ("a folder that is not there", {"source": "./nowhere"}, "nowhere"),
    ("a pattern of nothing", {"source": "rows/*.parquet"}, r"\*.parquet"),
    ("a kind nobody knows", {"source": "rows/train.xlsx"}, "xlsx"),
    ("a format without files", {"source": "webdataset"}, "data_files"),
    ("a split nobody has", {"train_split": "training"}, "training"),
    ("a slice backwards", {"train_split": "train[10:2]"}, "train"),
    ("a slice of nothing", {"train_split": "train[0:0]"}, "train"),
    ("a slice that is no slice", {"train_split": "train[some]"}, "train"),
    ("an empty text", {"source": ""}, "source"),
    ("a stream of no length", {"streaming": True}, "samples_per_epoch"),
    ("a stream shorter than a step", {"streaming": True, "samples_per_epoch": 3}, "samples_per_epoch|batch|step"),
    ("files that are not there", {"source": "json", "data_files": "rows/gone.jsonl"}, "gone.jsonl"),
]


def cases() -> Iterator[Case]:
    """All of this table."""
    for name, odd, words in DROPPED:
        yield Case("rows", name, "dropped", words, write=_one_odd(odd))
        yield Case("rows", f"eval, {name}", "dropped", words, EVAL, _one_odd(odd))
    for name, odd in RIGHT:
        yield Case("rows", name, "right", write=_one_odd(odd))
        yield Case("rows", f"eval, {name}", "right", command=EVAL, write=_one_odd(odd))
    for name, row, changes, expects, words in COLUMNS:
        yield Case("rows", name, expects, words, write=_all_odd(row, changes))
        if "warned" not in expects:
            yield Case("rows", f"eval, {name}", expects, words, EVAL, _all_odd(row, changes))
    for name, content, words in FILES:
        yield Case("rows", f"a file of {name}", "refused", words, write=_file(content))
    for name, source, words in SOURCES:
        yield Case("rows", f"a source that is {name}", "refused", words, write=_source(source))
    yield Case("rows", "fewer rows than a batch", "refused", "batch", write=_few)


def _settings(folder: Path, changes: dict[str, Any]) -> None:
    values = {
        "data": {
            "source": "rows/train.jsonl",
            "caption_column": "text",
            "label_column": "label",
            "class_names": ["cat", "dog"],
            "validation_split": "train",
            "max_bad_share": 0.5,
            "prompt_templates": "simple",
        }
    }
    chain_recipe(values | changes, scenes=False)(folder)


def _one_odd(odd: dict[str, Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_pictures(folder / "rows", odd)
        (folder / "rows" / "folder").mkdir()
        _settings(folder, {})

    return write


def _all_odd(row: Callable[[int], dict[str, Any]], changes: dict[str, Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_pictures(folder / "rows")
        path = folder / "rows" / "train.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        changed = [json.dumps(values | row(number)) for number, values in enumerate(rows)]
        path.write_text("\n".join(changed), encoding="utf-8")
        _settings(folder, changes)

    return write


def _file(content: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_pictures(folder / "rows")
        (folder / "rows" / "train.jsonl").write_bytes(content)
        _settings(folder, {})

    return write


def _source(changes: dict[str, Any]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_pictures(folder / "rows")
        (folder / "rows" / "train.xlsx").write_bytes(b"PK\x03\x04")
        _settings(folder, {f"data.{name}": value for name, value in changes.items()})

    return write


def _few(folder: Path) -> None:
    write_pictures(folder / "rows", rows=5)
    _settings(folder, {})
