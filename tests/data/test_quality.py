"""Bad rows are counted, named, left out, and stop the run when there are too many."""

from __future__ import annotations

import json
import math

import pytest
from datasets import Dataset, Features, Image, List, Value
from torch.utils.data import DataLoader

from hf_chain.data import DataSettings, ImageTextDataset, ImageTextStream, check_quality
from hf_chain.data import quality as quality_module
from hf_chain.data.image_files import image_files_key
from hf_chain.errors import HfChainError

FEATURES = Features({"image": Image(), "text": List(Value("string"))})


def settings_of(**options):
    return DataSettings(source="folder", caption_column="text", **options)


@pytest.fixture
def rows(pictures) -> Dataset:
    """Eight rows: 2 truncated, 3 missing, 5 without caption, 6 with one empty caption of two."""
    pictures[2].write_bytes(pictures[2].read_bytes()[:60])
    pictures[3].unlink()
    texts = [["a picture"]] * 8
    texts[5], texts[6] = ["", None], ["", "a picture"]
    return Dataset.from_dict({"image": [str(path) for path in pictures], "text": texts}, features=FEATURES)


def test_bad_rows_are_left_out_and_reported_by_path(rows, pictures, tmp_path, caplog):
    report = tmp_path / "bad" / "train.json"
    with caplog.at_level("WARNING"):
        assert check_quality(rows, settings_of(max_bad_share=0.5), report_file=report) == [0, 1, 4, 6, 7]
    written = json.loads(report.read_text())
    assert written["rows"] == 8
    assert [(bad["row"], bad["path"], bad["usable"]) for bad in written["bad"]] == [
        (row, str(pictures[row]), row == 6) for row in (2, 3, 5, 6)
    ]
    assert "caption 0 is empty" in written["bad"][2]["problem"]


def test_too_many_bad_rows_stop_the_run(rows, pictures, tmp_path):
    with pytest.raises(HfChainError, match=r"4 of 8 rows of train are bad \(50.0%\)") as caught:
        check_quality(rows, settings_of(max_bad_share=0.49), name="train", report_file=tmp_path / "bad.json")
    message = str(caught.value)
    assert str(pictures[2]) in message and "max_bad_share" in message and "\n" not in message
    assert (tmp_path / "bad.json").exists()


def test_a_share_that_is_just_reached_is_allowed(rows):
    assert len(check_quality(rows, settings_of(max_bad_share=0.5))) == 5


def test_rows_that_are_all_bad_stop_the_run_whatever_the_share(rows):
    with pytest.raises(HfChainError, match="2 of 2 rows"):
        check_quality(rows.select([2, 5]), settings_of(max_bad_share=1.0))


def test_a_scan_is_not_repeated(rows, monkeypatch):
    settings = settings_of(max_bad_share=0.5)
    first = check_quality(rows, settings)
    monkeypatch.setattr(quality_module, "_scan", None)
    assert check_quality(rows, settings) == first
    with pytest.raises(HfChainError):
        check_quality(rows, settings_of(max_bad_share=0.1))


@pytest.mark.parametrize("decoded", [True, False])
def test_a_failed_scan_is_repeated_and_a_changed_file_is_noticed(rows, pictures, decoded):
    two = rows.select([2, 0, 1]).cast_column("image", Image(decode=decoded))
    with pytest.raises(HfChainError, match="1 of 3 rows"):
        check_quality(two, settings_of())
    pictures[2].write_bytes(pictures[0].read_bytes())
    assert check_quality(two, settings_of()) == [0, 1, 2]
    pictures[0].unlink()
    with pytest.raises(HfChainError, match="1 of 3 rows"):
        check_quality(two, settings_of())


def test_images_that_a_data_set_holds_are_not_read_for_its_key(pictures, monkeypatch):
    held = [{"bytes": path.read_bytes(), "path": path.name} for path in pictures]
    rows = Dataset.from_dict({"image": held, "text": [["a"]] * 8}, features=FEATURES)
    monkeypatch.setattr(Dataset, "iter", None)
    assert image_files_key(rows, "image") == image_files_key(rows.select([1]), "image")


def test_nan_captions_are_counted(pictures):
    columns = {"image": [str(path) for path in pictures], "text": [math.nan] * 8}
    rows = Dataset.from_dict(columns, features=Features({"image": Image(), "text": Value("float32")}))
    with pytest.raises(HfChainError, match="8 of 8 rows .* caption 0 is NaN"):
        check_quality(rows, settings_of())


def test_a_broken_image_that_was_not_scanned_is_named(rows, pictures):
    with pytest.raises(HfChainError, match="row 2") as caught:
        ImageTextDataset(rows, settings_of())[2]
    assert str(pictures[2]) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_skips_and_records_bad_rows(rows, pictures, tmp_path, workers):
    report = tmp_path / "bad.jsonl"
    stream = ImageTextStream(
        rows.to_iterable_dataset(num_shards=2), settings_of(max_bad_share=0.5), report_file=report
    )
    samples = list(DataLoader(stream, batch_size=None, num_workers=workers))
    assert sorted(sample["image"].width for sample in samples) == [20, 21, 24, 26, 27]
    bad = [json.loads(line) for line in report.read_text().splitlines()]
    assert {entry["path"] for entry in bad} == {str(pictures[row]) for row in (2, 3, 5, 6)}


def test_a_stream_stops_past_the_share(rows):
    stream = ImageTextStream(rows.to_iterable_dataset(), settings_of(max_bad_share=0.49))
    with pytest.raises(HfChainError, match="4 of 8 rows of the stream"):
        list(stream)
    endless = ImageTextStream(rows.select([0, 2]).to_iterable_dataset().repeat(None), settings_of())
    with pytest.raises(HfChainError, match="of the stream are bad"):
        list(endless)
