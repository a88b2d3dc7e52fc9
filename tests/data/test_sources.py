"""Every format loads, never needs the network when it is local, and fails in one line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile

import pytest
from datasets import Dataset, Features, Image, Value
from torch.utils.data import DataLoader

from hf_chain.data import DataSettings, ImageTextDataset, ImageTextStream, load_splits, sources
from hf_chain.errors import HfChainError

COLORS = [(30 * number, 255 - 30 * number, 90) for number in range(8)]


def settings_of(source, **options):
    return DataSettings(source=str(source), **{"validation_split": None, "caption_column": "text", **options})


def table(pictures):
    columns = {"image": [str(path) for path in pictures], "text": [f"picture {path.stem}" for path in pictures]}
    return Dataset.from_dict(columns, features=Features({"image": Image(), "text": Value("string")}))


def write_tar(path, pictures):
    with tarfile.open(path, "w") as tar:
        for picture in pictures:
            for suffix, content in (("png", picture.read_bytes()), ("txt", f"picture {picture.stem}".encode())):
                member = tarfile.TarInfo(f"{picture.stem}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def assert_all_pictures(samples):
    samples = sorted(samples, key=lambda sample: sample["captions"])
    assert [sample["captions"] for sample in samples] == [[f"picture {number}"] for number in range(8)]
    assert [sample["image"].getpixel((3, 3)) for sample in samples] == COLORS


def test_parquet_files_load_by_glob(pictures, tmp_path):
    rows = table(pictures)
    for part in range(2):
        rows.shard(2, part).to_parquet(tmp_path / f"part-{part}.parquet")
    settings = settings_of(tmp_path / "*.parquet")
    assert_all_pictures(ImageTextDataset(load_splits(settings)["train"], settings))


def test_a_folder_of_parquet_files_brings_its_splits(pictures, tmp_path):
    (tmp_path / "set").mkdir()
    for split in ("train", "validation", "rare"):
        table(pictures).to_parquet(tmp_path / "set" / f"{split}-00000-of-00001.parquet")
    settings = settings_of(tmp_path / "set", validation_split="validation", train_split="train[:50%]")
    splits = load_splits(settings)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 4, "validation": 8}


def test_an_image_folder_with_captions_loads(pictures):
    lines = [json.dumps({"file_name": path.name, "text": f"picture {path.stem}"}) for path in pictures]
    (pictures[0].parent / "metadata.jsonl").write_text("\n".join(lines))
    settings = settings_of(pictures[0].parent)
    assert_all_pictures(ImageTextDataset(load_splits(settings)["train"], settings))


def test_an_image_folder_of_classes_loads(pictures):
    for picture in pictures:
        folder = picture.parent / ("cat" if int(picture.stem) % 2 else "sea_dog")
        folder.mkdir(exist_ok=True)
        picture.rename(folder / picture.name)
    options = {"caption_column": None, "label_column": "label", "prompt_templates": ["a {}"]}
    settings = settings_of("imagefolder", data_files=str(pictures[0].parent / "*" / "*.png"), **options)
    samples = list(ImageTextDataset(load_splits(settings)["train"], settings))
    assert {(sample["label"], *sample["captions"]) for sample in samples} == {(0, "a cat"), (1, "a sea dog")}


def test_json_lines_with_relative_paths_load(pictures, tmp_path):
    lines = [json.dumps({"image": f"pictures/{p.name}", "text": f"picture {p.stem}"}) for p in pictures]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    settings = settings_of(tmp_path / "list.jsonl")
    assert_all_pictures(ImageTextDataset(load_splits(settings)["train"], settings))
    streaming = settings_of(tmp_path / "list.jsonl", streaming=True)
    assert_all_pictures(ImageTextStream(load_splits(streaming)["train"], streaming))


def test_a_saved_data_set_loads(pictures, tmp_path):
    table(pictures).save_to_disk(tmp_path / "saved")
    settings = settings_of(tmp_path / "saved")
    assert_all_pictures(ImageTextDataset(load_splits(settings)["train"], settings))


@pytest.mark.parametrize("workers", [0, 2])
def test_webdataset_shards_stream(pictures, tmp_path, workers):
    write_tar(tmp_path / "00.tar", pictures[:4])
    write_tar(tmp_path / "01.tar", pictures[4:])
    settings = settings_of(tmp_path / "*.tar", streaming=True, image_column="png", caption_column="txt")
    stream = ImageTextStream(load_splits(settings)["train"], settings)
    samples = list(DataLoader(stream, batch_size=None, num_workers=workers))
    assert_all_pictures(samples)
    assert len({sample["image_id"] for sample in samples}) == len(samples)


def test_what_is_drawn_in_a_stream_does_not_depend_on_its_order(scenes, tmp_path, monkeypatch):
    # `datasets` waits five seconds at the end of a parquet stream.
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
    scenes["train"].select(range(20)).to_parquet(tmp_path / "rows.parquet")
    options = {"streaming": True, "caption_column": "captions", "captions_per_image": 2}
    settings = settings_of(tmp_path / "rows.parquet", augmentation={"crop_scale": (0.3, 0.9)}, **options)

    def drawn(order_seed, epoch):
        stream = ImageTextStream(load_splits(settings, seed=order_seed)["train"], settings, seed=0)
        stream.set_epoch(epoch)
        return [(sample["image"].tobytes(), tuple(sample["captions"])) for sample in stream]

    first, second = drawn(0, 0), drawn(1, 0)
    assert first != second and sorted(first) == sorted(second)
    assert sorted(first) != sorted(drawn(0, 1))


def test_a_pass_is_drawn_for_its_own_epoch_when_another_worker_is_ahead(scenes):
    options = {"streaming": True, "caption_column": "captions", "augmentation": {"crop_scale": (0.3, 0.9)}}
    rows = scenes["train"].select(range(8)).to_iterable_dataset()
    stream = ImageTextStream(rows, settings_of("scenes.parquet", **options))
    alone = [sample["image"].tobytes() for sample in stream]
    samples = iter(stream)
    begun = [next(samples)["image"].tobytes()]
    stream.set_epoch(1)
    assert begun + [sample["image"].tobytes() for sample in samples] == alone


def test_a_stream_goes_on_where_it_stopped(pictures, tmp_path):
    write_tar(tmp_path / "00.tar", pictures)
    settings = settings_of(
        tmp_path / "*.tar", streaming=True, image_column="png", caption_column="txt", shuffle_buffer=1
    )

    def stream():
        return ImageTextStream(load_splits(settings)["train"], settings)

    whole = [sample["captions"] for sample in stream()]
    stopped = stream()
    stopped.set_epoch(0)
    samples = iter(stopped)
    seen = [next(samples)["captions"] for _ in range(3)]
    for _ in range(2):  # Resuming twice must be right twice.
        resumed = stream()
        resumed.load_state_dict(stopped.state_dict())
        assert seen + [sample["captions"] for sample in resumed] == whole


def test_a_random_subset_is_the_same_for_the_same_seed(pictures, tmp_path):
    table(pictures).to_parquet(tmp_path / "rows.parquet")
    settings = settings_of(tmp_path / "rows.parquet", max_train_samples=4)
    first, again, other = (load_splits(settings, seed)["train"]["text"] for seed in (0, 0, 1))
    assert list(first) == list(again) != list(other) and len(first) == 4


def test_real_photographs_with_five_captions_load(shared):
    settings = DataSettings(source=str(shared / "data" / "flickr-captions"), caption_column="captions")
    splits = load_splits(settings)
    pairs = ImageTextDataset(splits["validation"], settings)
    assert len(splits["train"]) == 800 and len(pairs.captions(0)) == 5
    assert pairs[0]["image"].mode == "RGB" and min(pairs[0]["image"].size) == 112


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("/no/such/folder", {}, "no folder here"),
        ("/no/such/*.parquet", {}, "no file matches"),
        ("imagefolder", {}, "data_files"),
        (
            "scenes",
            {"validation_split": "dev"},
            "'dev' is not in scenes; it has train, validation, test, compositional",
        ),
    ],
)
def test_a_source_that_is_not_there_gives_one_line(source, options, message):
    scenes = {"train": 3, "validation": 1, "test": 1, "compositional": 1}
    with pytest.raises(HfChainError, match=message) as caught:
        load_splits(settings_of(source, caption_column="captions", scenes=scenes, **options))
    assert "\n" not in str(caught.value)


def test_scenes_of_other_splits_are_not_rendered(monkeypatch):
    """`hf-chain eval` asks for a validation split beside which there may be tens of thousands of scenes."""
    rendered = []
    monkeypatch.setattr(sources, "scenes_of_split", lambda scenes, split: rendered.append(split) or range(1))
    monkeypatch.setattr(sources, "_with_images", lambda rows, settings: rows)
    assert list(load_splits(DataSettings(), only=["validation"])) == ["validation"]
    assert rendered == ["validation"]


def test_an_unknown_split_of_files_gives_one_line(pictures, tmp_path):
    table(pictures).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(HfChainError, match="split 'dev'") as caught:
        load_splits(settings_of(tmp_path / "rows.parquet", train_split="dev"))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_parquet_gives_one_line(tmp_path):
    (tmp_path / "rows.parquet").write_text("not at all")
    with pytest.raises(HfChainError, match="cannot be loaded") as caught:
        load_splits(settings_of(tmp_path / "rows.parquet"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_missing_column_lists_those_there_are(pictures, tmp_path, streaming):
    table(pictures).to_parquet(tmp_path / "rows.parquet")
    settings = settings_of(tmp_path / "rows.parquet", caption_column="caption", streaming=streaming)
    with pytest.raises(HfChainError, match="caption_column 'caption' is not in .* its columns are image, text"):
        (ImageTextStream if streaming else ImageTextDataset)(load_splits(settings)["train"], settings)


@pytest.mark.slow
def test_local_files_need_no_network_and_an_unknown_name_fails_in_one_line(pictures, tmp_path):
    table(pictures).to_parquet(tmp_path / "rows.parquet")
    code = (
        "import sys\n"
        "from hf_chain.data import DataSettings, load_splits\n"
        "from hf_chain.errors import HfChainError\n"
        "options = dict(validation_split=None, caption_column='text')\n"
        "print(len(load_splits(DataSettings(source=sys.argv[1], **options))['train']))\n"
        "try:\n"
        "    load_splits(DataSettings(source='nobody/nothing', **options))\n"
        "except HfChainError as error:\n"
        "    print(error)\n"
    )
    # A closed port: whoever asks the network is refused at once.
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "rows.parquet")],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    count, message = done.stdout.splitlines()
    assert count == "8" and "nobody/nothing" in message


def test_accelerate_deals_a_stream_to_two_processes_without_overlap(pictures):
    from accelerate import PartialState
    from accelerate.data_loader import prepare_data_loader

    PartialState(cpu=True)
    settings = settings_of("folder")
    stream = ImageTextStream(table(pictures).to_iterable_dataset(num_shards=2), settings)
    shares = []
    for process in range(2):
        loader = prepare_data_loader(
            DataLoader(stream, batch_size=2, collate_fn=list),
            num_processes=2,
            process_index=process,
            put_on_device=False,
            dispatch_batches=False,
        )
        loader.set_epoch(2)
        shares.append([sample for batch in loader for sample in batch])
    assert stream.epoch == 2 and [len(share) for share in shares] == [4, 4]
    assert_all_pictures(shares[0] + shares[1])
