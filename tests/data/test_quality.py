"""Bad rows are counted, named, left out, and stop the run when there are too many."""

from __future__ import annotations

import json
import math

import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from torch.utils.data import DataLoader

from hf_chain.data import DataSettings, ImageTextDataset, ImageTextStream, check_quality
from hf_chain.data import quality as quality_module
from hf_chain.data.files import image_files_key
from hf_chain.data.quality import BadRow, QualityReport
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
        assert list(check_quality(rows, settings_of(max_bad_share=0.5), report_file=report)) == [0, 1, 4, 6, 7]
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
    assert list(check_quality(rows, settings)) == list(first)
    with pytest.raises(HfChainError):
        check_quality(rows, settings_of(max_bad_share=0.1))


@pytest.mark.parametrize("decoded", [True, False])
def test_a_failed_scan_is_repeated_and_a_changed_file_is_noticed(rows, pictures, decoded):
    two = rows.select([2, 0, 1]).cast_column("image", Image(decode=decoded))
    with pytest.raises(HfChainError, match="1 of 3 rows"):
        check_quality(two, settings_of())
    pictures[2].write_bytes(pictures[0].read_bytes())
    assert list(check_quality(two, settings_of())) == [0, 1, 2]
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


def test_long_values_are_cut_in_messages_and_reports(tmp_path, caplog):
    """A column of encoded images as text, or a book instead of a label."""
    columns = {"image": ["x" * 100_000] * 8, "label": [["y" * 100_000]] * 8}
    rows = Dataset.from_dict(columns)
    settings = DataSettings(source="folder", label_column="label", class_names=["a"], max_bad_share=1)
    with pytest.raises(HfChainError) as caught:
        check_quality(Dataset.from_dict({**columns, "label": [9] * 8}), settings, report_file=tmp_path / "bad")
    assert len(str(caught.value)) < 3000 and (tmp_path / "bad").stat().st_size < 10_000
    with pytest.raises(HfChainError) as caught:
        check_quality(rows, settings)
    assert len(str(caught.value)) < 400


def test_workers_of_a_scan_find_the_same(rows, monkeypatch):
    numbers = range(len(rows))
    alone = quality_module._scan(rows, settings_of(), "rows", numbers)
    monkeypatch.setattr(quality_module, "_ALONE", 0)
    monkeypatch.setattr(quality_module, "_SCAN_BATCH", 3)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    state = torch.get_rng_state()
    assert quality_module._scan(rows, settings_of(), "rows", numbers) == alone and len(alone.bad) == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_a_sample_is_judged_and_leaves_no_row_out(rows, monkeypatch):
    monkeypatch.setattr(quality_module, "_SAMPLE", 4)
    seen, read = [], quality_module.read_row
    monkeypatch.setattr(quality_module, "read_row", lambda number, *args: seen.append(number) or read(number, *args))
    with pytest.raises(HfChainError, match=r"\d of 4 rows of a sample of train are bad") as caught:
        check_quality(rows, settings_of(check="sample"), name="train")
    assert len(set(seen)) == 4 and str(caught.value).startswith(f"{len({2, 3, 5, 6} & set(seen))} of 4")
    assert check_quality(rows, settings_of(check="sample", max_bad_share=0.75)) == range(8)
    assert seen[:4] == seen[4:]


def test_a_sample_is_not_misled_by_rows_that_come_in_turns(pictures, monkeypatch):
    """Of every tenth row each is bad, and of all of them a tenth."""
    monkeypatch.setattr(quality_module, "_SAMPLE", 100)
    columns = {
        "image": [str(pictures[row % 8]) for row in range(1000)],
        "text": [["a"] * (row % 10) for row in range(1000)],
    }
    found = Dataset.from_dict(columns, features=FEATURES)
    assert check_quality(found, settings_of(check="sample", max_bad_share=0.2)) == range(1000)


def test_no_row_is_read_where_the_check_is_off(rows, monkeypatch):
    monkeypatch.setattr(quality_module, "read_row", None)
    monkeypatch.setattr(quality_module, "image_files_key", None)
    for off in ("off", False):  # YAML reads off as false.
        assert check_quality(rows, settings_of(check=off)) == range(8)


def test_the_rows_of_data_without_bad_ones_take_no_memory():
    assert QualityReport(10_000_000).good_indices == range(10_000_000)
    few = QualityReport(10_000_000, [BadRow(3, None, "gone", usable=False), BadRow(5, None, "odd", usable=True)])
    assert len(few.good_indices) == 9_999_999 and few.good_indices.nbytes < 81_000_000
    assert few.good_indices[2:5].tolist() == [2, 4, 5]


def test_a_bad_row_that_was_not_left_out_is_named(rows, pictures):
    with pytest.raises(HfChainError, match="row 2") as caught:
        ImageTextDataset(rows, settings_of())[2]
    assert str(pictures[2]) in str(caught.value) and "\n" not in str(caught.value)


def drawn(pairs, epoch, **options):
    pairs.set_epoch(epoch)
    return [sample["image_id"] for sample in DataLoader(pairs, batch_size=None, **options)]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_rows_are_replaced_by_what_seed_epoch_and_row_choose(rows, tmp_path, workers):
    settings, good = settings_of(check="off", max_bad_share=0.5), {0, 1, 4, 6, 7}
    pairs = ImageTextDataset(rows, settings, report_file=tmp_path / "bad.jsonl")
    seen = [drawn(pairs, epoch, num_workers=workers) for epoch in range(20)]
    for ids in seen:
        assert all(found == row if row in good else found in good for row, found in enumerate(ids))
    assert len({ids[2] for ids in seen}) == 5 and any(ids[2] != ids[3] for ids in seen)
    # In another process, that begins with another epoch and row.
    other = ImageTextDataset(rows, settings)
    other.set_epoch(11)
    assert [other[row]["image_id"] for row in reversed(range(8))] == seen[11][::-1]
    assert drawn(ImageTextDataset(rows, settings, seed=1), 11) != seen[11]
    told = [json.loads(line)["row"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert set(told) == {2, 3, 5} and (workers or len(told) == 3)


def test_replaced_rows_are_counted_and_stop_the_run_past_the_share(rows):
    pairs = ImageTextDataset(rows, settings_of(check="off", max_bad_share=0.3))
    with pytest.raises(HfChainError, match="3 of . rows of the data of folder are bad .*max_bad_share"):
        for epoch in range(9):
            drawn(pairs, epoch)
    pairs = ImageTextDataset(rows, settings_of(check="off", max_bad_share=0.4))
    assert len([drawn(pairs, epoch) for epoch in range(9)]) == 9


def test_rows_of_which_none_can_be_used_are_refused(rows):
    settings = settings_of(check="off", max_bad_share=1)
    with pytest.raises(HfChainError, match="no row of folder can be used, it cannot be used, .*; check the data"):
        ImageTextDataset(rows.select([2, 3]), settings)[0]
    few = ImageTextDataset(rows.select([2, 3, 5, 5, 2, 3, 1, 2]), settings)
    assert {few[row]["image_id"] for row in range(8)} == {6}


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


def test_images_that_are_mappings_of_something_else_are_bad_rows(tmp_path):
    rows = Dataset.from_list([{"image": {"url": "x.png"}, "text": "a dog"}] * 3)
    with pytest.raises(HfChainError, match=r"3 of 3 rows .*row 0.*image"):
        check_quality(rows, DataSettings(source="folder", caption_column="text"))
