"""Streams on several processes: the same batches, each row decoded by one of them."""

from __future__ import annotations

from itertools import islice

import pytest
from accelerate.data_loader import IterableDatasetShard
from datasets import Dataset, Features, Image, Value
from PIL import Image as PIL
from torch.utils.data import DataLoader

from hf_chain.data import DataSettings, ImageTextStream, load_splits, quality
from hf_chain.data.streams import EndlessStream, LanedStream, number_of_lanes
from hf_chain.errors import HfChainError

ROWS, BATCH = 5, 24
"""Rows of a file, and of a batch, of which two are more than a pass of the smaller streams."""


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes files of so many rows; the last but one row of each cannot be read."""
    # `datasets` waits five seconds at the end of a parquet stream.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)

    def write(*sizes, broken=True, **options):
        for file, rows in enumerate(sizes):
            paths = []
            for row in range(rows):
                path = tmp_path / f"{file}-{row}.png"
                PIL.linear_gradient("L").resize((16, 16)).rotate(90).convert("RGB").save(path)
                if broken and row == rows - 2:
                    path.write_bytes(b"broken")
                paths.append(str(path))
            columns = {"image": paths, "text": [f"{file}-{row}" for row in range(rows)]}
            table = Dataset.from_dict(columns, features=Features({"image": Image(), "text": Value("string")}))
            table.to_parquet(tmp_path / f"{file}.parquet")
        options = {"max_bad_share": 0.5, "shuffle_buffer": 16, "augmentation": {"horizontal_flip": True}} | options
        return DataSettings(
            source=str(tmp_path / "*.parquet"),
            caption_column="text",
            streaming=True,
            validation_split=None,
            **options,
        )

    return write


def stream_of(settings, **options):
    return ImageTextStream(load_splits(settings)["train"], settings, **options)


def batches(settings, processes, process, number, workers=0, **options):
    """The rows that one of the processes sees in each of the first batches, as accelerate deals them."""
    size = BATCH // processes
    mine = range(process * size, (process + 1) * size)
    stream = LanedStream(stream_of(settings, **options), BATCH, mine, workers)
    shard = IterableDatasetShard(stream, size, num_processes=processes, process_index=process)
    loader = DataLoader(shard, batch_size=size, collate_fn=list, num_workers=workers)
    seen = [[(*row["captions"], row["image"].tobytes()) for row in batch] for batch in islice(loader, number)]
    assert [len(batch) for batch in seen] == [size] * number
    return seen


@pytest.mark.parametrize(
    ("files", "most", "workers", "lanes"),
    [(576, 8, 0, 8), (8, 8, 2, 4), (8, 8, 9, 1), (12, 8, 2, 6), (7, 8, 0, 7), (11, 8, 0, 1), (64, 64, 0, 64)],
)
def test_lanes_divide_the_files(files, most, workers, lanes):
    assert number_of_lanes(files, most, workers) == lanes


@pytest.mark.parametrize("files", [8, 3, 1])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_any_number_of_processes_sees_what_one_would(written, files, workers):
    settings = written(*[120 // files] * files)
    alone = batches(settings, 1, 0, 12, workers)
    rows = [row for batch in alone for row in batch]
    assert len({caption for caption, _ in rows}) == 120 - files and len(set(rows)) > 120
    for processes in (2, 3, 8) if not workers else (2,):
        shares = [batches(settings, processes, process, 12, workers) for process in range(processes)]
        assert [sum(parts, []) for parts in zip(*shares, strict=True)] == alone


def test_a_worker_begins_its_passes_alone(written):
    """One that is ahead must not choose the order of the others."""
    stream = stream_of(written(*[ROWS] * 8))
    loader = DataLoader(EndlessStream(stream), batch_size=None, num_workers=2)
    assert len(list(islice(loader, 100))) == 100
    assert stream.epoch == stream._rows.epoch == 0


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_each_process_decodes_its_own_rows_only(written, monkeypatch, processes):
    settings, decoded = written(*[ROWS] * 8), []
    decode = quality.decode_image
    monkeypatch.setattr(quality, "decode_image", lambda *args: decoded.append(args) or decode(*args))
    for process in range(processes):
        decoded.clear()
        used = sum(map(len, batches(settings, processes, process, 10)))
        # One row in five is bad, and was decoded as well.
        assert used <= len(decoded) <= 1.4 * used


def test_a_bad_row_of_a_shared_lane_is_reported_once(written, tmp_path):
    settings = written(*[40] * 3)
    for process in range(8):
        batches(settings, 8, process, 5, report_file=tmp_path / "bad.jsonl")
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("broken", [True, False])
def test_laned_streams_go_on_where_they_stopped(written, broken):
    settings = written(*[ROWS] * 8, broken=broken, shuffle_buffer=1)

    def begun(state=None):
        stream = LanedStream(stream_of(settings), BATCH, range(4, 12))
        if state:
            stream.load_state_dict(state)
        return stream, (row and row["captions"][0] for row in stream)

    whole = list(islice(begun()[1], 150))
    stream, samples = begun()
    seen = list(islice(samples, 70))
    assert seen + list(islice(begun(stream.state_dict())[1], 80)) == whole


def test_files_of_any_size_are_read(written):
    settings = written(*[40] * 7, 1, broken=False)
    seen = [caption for batch in batches(settings, 8, 7, 40) for caption, _ in batch]
    assert "7-0" in seen and len(set(seen)) > 40


def test_streams_shorter_than_a_batch_are_refused(written):
    settings = written(*[2] * 8, broken=False)
    with pytest.raises(HfChainError, match="^the stream has 16 rows and a batch over all processes 24: lower"):
        batches(settings, 8, 7, 40)
    assert batches(written(*[3] * 8, broken=False), 8, 7, 40)


def test_a_lane_is_judged_as_the_whole_stream_would_be(written):
    """One bad row in five is too many, but not eight in 285, whichever of them a lane has."""
    settings = written(*[ROWS] * 8, max_bad_share=0.19)
    for process in (0, 7):
        with pytest.raises(HfChainError, match="of the stream are bad"):
            batches(settings, 8, process, 400)
    settings = written(*[40] * 7, ROWS, max_bad_share=0.04)
    assert batches(settings, 8, 7, 100)
