"""A fingerprint tells data apart that differ in any image, text, length or order, and says how."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value, load_dataset
from PIL import Image as Pillow

from hf_chain.data import DataSettings, load_splits
from hf_chain.data import fingerprint as module
from hf_chain.data.chat import ChatDataSettings, load_chat
from hf_chain.data.chat.sources import fingerprint_chat
from hf_chain.data.files import image_files_key
from hf_chain.data.fingerprint import difference, fingerprint_files, fingerprint_pairs, fingerprint_rows

TEXTS = [f"picture {number}" for number in range(8)]
TEXT_NAMES = "captions, labels, conversations or texts differ"


def of(images, texts=TEXTS):
    rows = Dataset.from_dict({"image": images, "text": list(texts)})
    return fingerprint_rows(rows.cast_column("image", Image()), "image", ["text"])


@pytest.fixture
def paths(pictures):
    return [str(path) for path in pictures]


@pytest.fixture(params=["held", "named"])
def images(request, pictures):
    """Images that the data set holds, and images that it names."""
    if request.param == "named":
        return [str(path) for path in pictures]
    return [{"bytes": path.read_bytes(), "path": None} for path in pictures]


def test_every_change_of_data_is_named(images, tmp_path):
    before = of(images)
    other = str(tmp_path / "other.png")
    Pillow.new("RGB", (20, 16), "red").save(other)
    held = isinstance(images[0], dict)
    stored = {"bytes": (tmp_path / "other.png").read_bytes(), "path": None} if held else other
    longer, images_of_others = ["a"] * 9, [stored, *images[1:]]
    assert difference(before, of(images)) is None
    assert difference(before, of(images[::-1], TEXTS[::-1])) == "the order of the rows differs"
    assert difference(before, of(images[:7], TEXTS[:7])) == "7 rows instead of 8"
    assert difference(before, of([*images, images[0]], longer)) == "9 rows instead of 8"
    assert difference(before, of(images, ["another", *TEXTS[1:]])) == TEXT_NAMES
    assert difference(before, of(images_of_others)) == "images differ"
    assert difference(before, of(images_of_others, TEXTS[::-1])) == f"images and {TEXT_NAMES}"
    # The same captions, of other images.
    assert difference(before, of(images, TEXTS[::-1])) == TEXT_NAMES


@pytest.mark.parametrize("names", [["dog", "cat"], ["cat", "horse"]])
def test_other_names_of_the_classes_are_other_captions(images, names):
    def labelled(names):
        rows = Dataset.from_dict({"image": images, "label": [0, 1] * 4})
        features = Features({"image": Image(), "label": ClassLabel(names=names)})
        return fingerprint_rows(rows.cast(features), "image", ["label"])

    assert difference(labelled(["cat", "dog"]), labelled(["cat", "dog"])) is None
    assert difference(labelled(["cat", "dog"]), labelled(names)) == TEXT_NAMES


def test_a_renamed_folder_of_a_class_is_noticed(pictures, tmp_path):
    settings = DataSettings(
        source="imagefolder",
        data_files=str(tmp_path / "set" / "*" / "*.png"),
        label_column="label",
        **{"validation_split": None, "caption_column": None},
    )
    for number, picture in enumerate(pictures):
        folder = tmp_path / "set" / ("cats" if number % 2 else "dogs")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder)

    def found():
        return fingerprint_pairs(load_splits(settings)["train"], settings, "train")

    before = found()
    assert found() == before
    (tmp_path / "set" / "cats").rename(tmp_path / "set" / "horses")
    (tmp_path / "set" / "dogs").rename(tmp_path / "set" / "ants")
    assert difference(before, found()) is not None


def test_other_pixels_of_the_same_size_and_time_are_noticed(pictures, tmp_path):
    """Also where the fingerprint is remembered: the time of change of a file's record cannot be set."""
    folder = tmp_path / "folder"
    shutil.copytree(pictures[0].parent, folder)
    rows = Dataset.from_dict({"image": [str(path) for path in sorted(folder.iterdir())], "text": TEXTS})
    rows.cast_column("image", Image()).to_parquet(tmp_path / "plain.parquet")
    stored = load_dataset("imagefolder", data_dir=str(folder), split="train")
    before = fingerprint_rows(stored, "image", [])
    target = folder / "3.png"
    times, content = os.stat(target), bytearray(target.read_bytes())
    content[len(content) // 2] ^= 1
    target.write_bytes(content)
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert os.stat(target).st_size == times.st_size and os.stat(target).st_mtime_ns == times.st_mtime_ns
    assert difference(before, fingerprint_rows(stored, "image", [])) == "images differ"


def test_files_named_by_their_address_are_read(pictures, tmp_path):
    shutil.copytree(pictures[0].parent, tmp_path / "folder")
    files = sorted((tmp_path / "folder").iterdir())
    rows = Dataset.from_dict({"image": [f"file://{file}" for file in files]}).cast_column("image", Image(decode=False))
    before, key = fingerprint_rows(rows, "image", []), image_files_key(rows, "image")
    Pillow.new("RGB", (20, 16), "red").save(files[3])
    assert difference(before, fingerprint_rows(rows, "image", [])) == "images differ"
    assert image_files_key(rows, "image") != key


def test_data_that_are_moved_or_stored_otherwise_are_the_same(paths, tmp_path):
    before = of(paths)
    held = [{"bytes": Path(path).read_bytes(), "path": "elsewhere.png"} for path in paths]
    assert of(held) == before
    rows = Dataset.from_dict({"image": held, "text": TEXTS}).cast_column("image", Image())
    rows.to_parquet(tmp_path / "rows.parquet")
    settings = DataSettings(source=str(tmp_path / "*.parquet"), caption_column="text", validation_split=None)
    found = load_splits(settings)["train"]
    assert fingerprint_pairs(found, settings, "train") == before
    shuffled = found.shuffle(seed=3)
    assert fingerprint_pairs(shuffled, settings, "train")["content"] == before["content"]
    back = shuffled.select([shuffled["text"].index(text) for text in TEXTS])
    assert fingerprint_pairs(back, settings, "train") == before


def test_files_are_read_once(paths, monkeypatch, tmp_path):
    Dataset.from_dict({"image": paths, "text": TEXTS}).cast_column("image", Image()).save_to_disk(tmp_path / "rows")
    rows = Dataset.load_from_disk(str(tmp_path / "rows"))
    first = fingerprint_rows(rows, "image", ["text"])
    monkeypatch.setattr(module, "_image_digests", None)
    assert fingerprint_rows(rows, "image", ["text"]) == first


def test_lists_of_images_and_rows_without_any(paths):
    features = Features({"images": List(Image(decode=False)), "text": Value("string")})

    def of_lists(lists):
        rows = Dataset.from_dict({"images": lists, "text": TEXTS[: len(lists)]}, features=features)
        return fingerprint_rows(rows, "images", ["text"])

    one, two = ({"path": path, "bytes": None} for path in paths[:2])
    before = of_lists([[one, two], [], [one]])
    assert of_lists([[one, two], [], [one]]) == before
    for other in ([[one], [two], [one]], [[one, two], [one], []], [[two, one], [], [one]], [[one, two], [], []]):
        assert difference(before, of_lists(other)) == "images differ"


def test_what_cannot_be_read_never_blocks(paths, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    one = of([str(tmp_path / "pipe"), *paths[1:]])
    assert difference(one, of(paths)) == "images differ"
    assert of([str(tmp_path / "gone"), *paths[1:]]) == one


@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_is_known_by_its_files_and_their_sizes(chat, tmp_path):
    kind = ChatDataSettings if chat else DataSettings
    columns = {"messages": [[{"role": "user", "content": text}] for text in TEXTS]} if chat else {"text": TEXTS}
    options = {} if chat else {"caption_column": "text"}

    def found():
        settings = kind(source=str(tmp_path / "*.parquet"), streaming=True, validation_split=None, **options)
        if chat:
            return fingerprint_chat(load_chat(settings)["train"], settings, "train")
        rows = load_dataset("parquet", data_files=settings.source, split="train", streaming=True)
        return fingerprint_pairs(rows, settings, "train")

    for number in range(2):
        Dataset.from_dict(columns).to_parquet(tmp_path / f"{number}.parquet")
    before = found()
    assert before["files"] == 2 and before["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.parquet"))
    Dataset.from_dict({name: values * 2 for name, values in columns.items()}).to_parquet(tmp_path / "1.parquet")
    assert "bytes instead of" in difference(before, found())
    (tmp_path / "1.parquet").unlink()
    assert difference(before, found()) == "1 files instead of 2"
    assert difference(before, {"rows": 1}) == "one of the two is a stream"


def test_a_revision_is_no_part_of_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_size", lambda file: 5)
    one, other = (f"hf://datasets/user/name@{letter * 40}/train.tar" for letter in "ab")
    assert fingerprint_files([one]) == fingerprint_files([other])
    assert difference(fingerprint_files([one]), fingerprint_files([other.replace("train", "more")])) == "other files"
