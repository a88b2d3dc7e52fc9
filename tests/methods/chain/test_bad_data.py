"""Wrong data sets: what cannot be used is counted and reported by path, or refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from hf_chain.runs.lock import LOCK_NAME
from support.command_line import Command
from support.recipes import tiny_values, write_recipe

ROWS = 40


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what `datasets` and the quality scan remember out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets_cache")


def write_split(folder: Path, captions: dict[int, Any] | None = None, broken: int = 0, kind: str = "png") -> None:
    """Writes pictures with one caption each, some of another text and the first `broken` of them cut short."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(ROWS):
        name = f"{number:02d}.png"
        Image.new("RGB", (20, 16), (6 * number, 90, 30)).save(folder / name)
        if number < broken and kind == "png":
            (folder / name).write_bytes((folder / name).read_bytes()[:50])
        elif number < broken:
            (folder / name).unlink()
            name = f"{number:02d}.tiff"
            Image.fromarray(np.full((16, 16), np.nan, dtype=np.float32)).save(folder / name)
        text = (captions or {}).get(number, f"picture number {number}")
        rows.append(json.dumps({"file_name": name, "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))


def recipe_for(tmp_path: Path, **data: Any) -> Path:
    """A recipe of one member on the pictures in `tmp_path`."""
    values = tiny_values(tmp_path / "runs", members=1)
    source = {"source": str(tmp_path / "pictures"), "caption_column": "text"}
    values["data"] = source | data
    return write_recipe(tmp_path / "recipe.yaml", values)


BAD_ROWS = [
    ("broken image", {"broken": 1}, r"1 of 40 rows of train are bad \(2.5%\): row 0 .*00.png.* image cannot be read"),
    ("all broken", {"broken": ROWS}, r"40 of 40 rows of train are bad \(100.0%\): .*01.png.*02.png"),
    ("NaN pixels", {"broken": 2, "kind": "tiff"}, r"2 of 40 rows .*01.tiff.* the image holds NaN or infinite pixels"),
    ("empty caption", {"captions": {3: " "}}, r"1 of 40 rows .*03.png.*: caption 0 is empty"),
    ("no caption", {"captions": {3: None}}, r"1 of 40 rows .*03.png.*: caption 0 is None"),
]


@pytest.mark.parametrize(("wrong", "words"), [pytest.param(*case[1:], id=case[0]) for case in BAD_ROWS])
def test_too_many_bad_rows_stop_the_run_with_a_counted_report(
    wrong: dict[str, Any], words: str, hf_chain: Command, tmp_path: Path
) -> None:
    write_split(tmp_path / "pictures" / "train", **wrong)
    message = hf_chain("run", recipe_for(tmp_path, validation_split=None)).message
    assert re.search(words, message) and "raise max_bad_share (now 0.01)" in message
    report = tmp_path / "runs" / "tiny" / "data" / "train-bad-rows.json"
    assert str(report) in message
    bad = json.loads(report.read_text())["bad"]
    assert len(bad) == wrong.get("broken", 1) and all(Path(row["path"]).exists() for row in bad)
    written = {path for path in report.parent.parent.rglob("*") if path.is_file()}
    assert written - {report.parent.parent / LOCK_NAME} == {report}


def test_bad_rows_below_the_share_are_left_out_and_reported(hf_chain: Command, tmp_path: Path) -> None:
    write_split(tmp_path / "pictures" / "train", broken=2)
    write_split(tmp_path / "pictures" / "validation", captions={5: ""})
    outcome = hf_chain("run", recipe_for(tmp_path, max_bad_share=0.1), "--set", "evaluation.max_samples=8")
    assert outcome.status == 0, outcome.err[-1000:]
    run = tmp_path / "runs" / "tiny"
    counts = {}
    for split in ("train", "validation"):
        report = json.loads((run / "data" / f"{split}-bad-rows.json").read_text())
        counts[split] = [bad["row"] for bad in report["bad"]]
    assert counts == {"train": [0, 1], "validation": [5]}
    assert (run / "01-tiny" / "model.safetensors").exists()
    events = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
    assert next(event["samples"] for event in events if event["event"] == "trained") == 32


WRONG_SOURCES = [
    ("no folder", {"source": "/nowhere/at/all"}, "'/nowhere/at/all' is no folder here; check the path"),
    ("no file", {"source": "/nowhere/*.parquet"}, r"no file matches source '/nowhere/\*.parquet'; check the path"),
    ("no split", {"train_split": "training"}, "split 'training' .* cannot be loaded, .*'train', 'validation'"),
    ("no test split", {"test_splits": ["exam"]}, "split 'exam' .* cannot be loaded"),
    (
        "no caption column",
        {"caption_column": "caption"},
        "caption_column 'caption' is not in .* columns are image, text",
    ),
    ("no image column", {"image_column": "picture"}, "image_column 'picture' is not in .* columns are image, text"),
    ("labels without names", {"caption_column": None, "label_column": "text"}, "'text' holds string, not one class"),
    ("format without files", {"source": "parquet"}, "'parquet' is a format; say which files in data_files"),
]


@pytest.mark.parametrize(("data", "words"), [pytest.param(*case[1:], id=case[0]) for case in WRONG_SOURCES])
def test_a_source_that_does_not_fit_is_refused(
    data: dict[str, Any], words: str, hf_chain: Command, tmp_path: Path
) -> None:
    for split in ("train", "validation"):
        write_split(tmp_path / "pictures" / split)
    message = hf_chain("run", recipe_for(tmp_path, **data)).message
    assert re.search(words, message), message
    assert not (tmp_path / "runs" / "tiny").exists()


@pytest.mark.parametrize("streaming", [False, True])
def test_eval_leaves_out_the_rows_that_the_run_leaves_out(
    streaming: bool,
    hf_chain: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    write_split(tmp_path / "pictures" / "train")
    write_split(tmp_path / "pictures" / "validation", captions={5: "", 6: None}, broken=1)
    options = {"streaming": True, "samples_per_epoch": ROWS} if streaming else {}
    recipe = recipe_for(tmp_path, max_bad_share=0.1, **options)
    assert hf_chain("run", recipe).status == 0
    member = tmp_path / "runs" / "tiny" / "01-tiny"
    measured = json.loads((member / "evaluation.json").read_text())["validation"]["metrics"]
    caplog.clear()
    outcome = hf_chain("eval", member, "--recipe", recipe)
    assert outcome.status == 0, outcome.err[-1000:]
    assert json.loads(outcome.out)["validation"] == measured
    assert "3 of 40 rows of validation are bad" in caplog.text


def test_true_and_false_are_classes_and_text_is_refused(hf_chain: Command, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    write_split(folder / "images")
    paths = [f"images/{number:02d}.png" for number in range(ROWS)]
    for name, labels in {"bools": [number % 2 == 0 for number in range(ROWS)], "lists": [[1]] * ROWS}.items():
        Dataset.from_dict({"image": paths, "label": labels}).to_json(folder / f"{name}.jsonl")
    options = {"validation_split": "train", "caption_column": None, "label_column": "label", "class_names": ["a", "b"]}
    outcome = hf_chain("run", recipe_for(tmp_path, source=str(folder / "bools.jsonl"), **options))
    assert outcome.status == 0, outcome.err[-1000:]
    message = hf_chain("run", recipe_for(tmp_path, source=str(folder / "lists.jsonl"), **options), "--set", "name=b")
    assert "label_column 'label' holds List(Value('int64')), not one class number a row" in message.message


def test_labels_out_of_range_are_counted(hf_chain: Command, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    write_split(folder / "images")
    paths = [f"images/{number:02d}.png" for number in range(ROWS)]
    rows = {"image": paths, "label": [77 if number == 5 else number % 2 for number in range(ROWS)]}
    Dataset.from_dict(rows).to_csv(folder / "train.csv")
    options = {"source": str(folder / "train.csv"), "validation_split": None, "caption_column": None}
    recipe = recipe_for(tmp_path, **options, label_column="label", class_names=["cat", "dog"])
    message = hf_chain("run", recipe).message
    assert re.search(r"1 of 40 rows .*05.png.*: label 77 is out of range for 2 class names", message), message


def test_captions_that_are_numbers_are_counted(hf_chain: Command, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    write_split(folder / "images")
    paths = [f"images/{number:02d}.png" for number in range(ROWS)]
    numbers = [float("nan") if number == 1 else 0.5 for number in range(ROWS)]
    Dataset.from_dict({"image": paths, "text": numbers}).to_json(folder / "train.jsonl")
    recipe = recipe_for(tmp_path, source=str(folder / "train.jsonl"), validation_split=None)
    assert "40 of 40 rows of train are bad (100.0%)" in hf_chain("run", recipe).message


def test_a_damaged_parquet_file_is_refused(hf_chain: Command, tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing more")
    recipe = recipe_for(tmp_path, source=str(tmp_path / "train.parquet"), validation_split=None)
    message = hf_chain("run", recipe).message
    assert str(tmp_path / "train.parquet") in message and "cannot be loaded" in message


def test_a_batch_larger_than_the_data_is_refused(hf_chain: Command, tmp_path: Path) -> None:
    write_split(tmp_path / "pictures" / "train")
    recipe = recipe_for(tmp_path, validation_split=None)
    message = hf_chain("run", recipe, "--set", "training.per_device_train_batch_size=64").message
    assert re.search("members.tiny: a global batch has 64 samples but the training split only 40: lower", message)


def test_a_processor_of_a_refused_attempt_is_not_used_again(hf_chain: Command, tmp_path: Path) -> None:
    write_split(tmp_path / "pictures" / "train")
    recipe = recipe_for(tmp_path, validation_split=None)
    assert hf_chain("run", recipe, "--set", "training.per_device_train_batch_size=64").status == 1
    changed = ["--set", "model.max_text_tokens=9", "--set", "evaluation.max_samples=8"]
    assert hf_chain("run", recipe, *changed).status == 0
    saved = json.loads((tmp_path / "runs" / "tiny" / "01-tiny" / "tokenizer_config.json").read_text())
    assert saved["model_max_length"] == 9


@pytest.mark.parametrize("streaming", [False, True])
def test_a_parquet_file_of_plain_bytes_is_trained_on_and_evaluated(
    streaming: bool, hf_chain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pandas and webdataset tools write images as `{"bytes", "path"}` without telling `datasets`."""
    # `datasets` waits five seconds at the end of a parquet stream.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    write_split(tmp_path / "pictures")
    images = [{"bytes": path.read_bytes(), "path": None} for path in sorted((tmp_path / "pictures").glob("*.png"))]
    texts = [f"picture number {number}" for number in range(ROWS)]
    rows = Dataset.from_dict({"image": images, "text": texts})
    for split in ("train", "validation"):
        rows.to_parquet(tmp_path / "plain" / f"{split}.parquet")
    options = {"streaming": True, "samples_per_epoch": ROWS} if streaming else {}
    recipe = recipe_for(tmp_path, source=str(tmp_path / "plain"), **options)
    outcome = hf_chain("run", recipe, "--set", "evaluation.max_samples=10")
    assert outcome.status == 0, outcome.err[-1000:]
    measured = json.loads((tmp_path / "runs" / "tiny" / "01-tiny" / "evaluation.json").read_text())
    assert measured["validation"]["metrics"]["image_to_text_r10"] == 1
