"""Bad chat rows are counted, named by row and path, left out, and stop the run when there are too many."""

from __future__ import annotations

import json
import re

import pytest
from datasets import Dataset
from torch.utils.data import DataLoader

from hf_chain.data.chat import ChatCollator, ChatEncoder, ChatStream, check_chat
from hf_chain.data.chat import quality as quality_module
from hf_chain.data.chat.rows import FEATURES
from hf_chain.errors import HfChainError
from support.chat_models import tiny_vlm


@pytest.fixture(scope="module")
def processor():
    return tiny_vlm()[1]


def turns(*texts, roles=("user", "assistant")):
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]


PROBLEMS = {
    1: "an image cannot be read",
    2: "there is no such image: image_folder names",
    3: "there is no response",
    4: "there is no response",
    5: "there are 2 images for 1 <image> placeholders",
    6: "there are 0 images for 1 <image> placeholders",
    7: "there are no messages",
    8: "message 0 has the role 'tool'",
    9: "and cut at max_length 60 it would lose an image",
    10: "tokens and is cut at 60",
    11: "the last message has no response",
    12: "message 2 is empty",
}
USABLE = {10, 11, 12}


@pytest.fixture
def rows(pictures) -> Dataset:
    """Thirteen rows, of which the first alone is good; see `PROBLEMS`."""
    pictures[1].write_bytes(pictures[1].read_bytes()[:60])
    pictures[2].unlink()
    good = turns("<image>\nwhat is this?", "red")
    long = "how many small red shapes are there on the white background?" * 5
    cells = [
        (good, [0]),
        (good, [1]),
        (good, [2]),
        (turns("<image> what?"), [3]),
        (turns("<image> what?", ""), [4]),
        (good, [5, 6]),
        (good, []),
        ([], [7]),
        (turns("a?", "b", roles=("tool", "assistant")), []),
        (turns(f"{long} <image>", "no"), [0]),
        (turns("one?", "two", long, "no"), []),
        (turns("one?", "two", "three?"), []),
        (turns("one?", "two", "", "no"), []),
    ]
    return Dataset.from_list(
        [
            {
                "messages": messages,
                "images": [{"path": str(pictures[number]), "bytes": None} for number in images],
                "kind": "",
                "answers": [],
                "negatives": "",
            }
            for messages, images in cells
        ],
        features=FEATURES,
    )


def test_every_problem_is_named_by_row_and_path(rows, pictures, processor, tmp_path):
    report = tmp_path / "bad" / "train.json"
    encoder = ChatEncoder(processor, max_length=60)
    good = check_chat(rows, encoder, max_bad_share=0.95, report_file=report)
    written = json.loads(report.read_text())
    assert written["rows"] == 13
    found = {bad["row"]: bad for bad in written["bad"]}
    assert found.keys() == PROBLEMS.keys()
    for row, problem in PROBLEMS.items():
        assert problem in found[row]["problem"] and found[row]["usable"] == (row in USABLE)
    assert found[2]["path"] == str(pictures[2])
    assert len(good) == 1 + len(USABLE)
    batch = ChatCollator(processor, max_length=60)([good[number] for number in range(len(good))])
    assert batch["attention_mask"].sum(1).tolist() == list(good["length"])


@pytest.mark.parametrize(
    "written",
    [
        *("<img>a/b.png</img>", "<|image_pad|>", "<|image_1|>", "<start_of_image>", "[IMG]", "<IMG_CONTEXT>"),
        *("<img><ImageHere></img>", "<ImageHere>", "<image_placeholder>", "<image 1>", "<|video_pad|>", "<|AUDIO|>"),
    ],
)
def test_images_in_the_text_of_another_layout_are_not_passed_over(written, processor):
    encoder = ChatEncoder(processor)
    with pytest.raises(ValueError, match=rf"^message 0 holds '{re.escape(written)}', an image of another layout"):
        encoder.encode(turns(f"Picture 1: {written}\nwhat is this?", "red"))
    encoder.encode(turns("is <img src='a.png'> or ![](a.png) html?", "the first"))


@pytest.mark.parametrize("written", ["<video>\nwhat is this?", "what is this?\n<video>", "<audio>\nwho speaks?"])
def test_films_and_sounds_are_not_passed_over(written, processor):
    encoder = ChatEncoder(processor)
    with pytest.raises(ValueError, match="^message 0 holds '<(video|audio)>', an image of another layout"):
        encoder.encode(turns(written, "a dog"))
    encoder.encode(turns("what does <video> do in html?", "it shows a film"))


def test_too_many_bad_rows_stop_the_run_in_one_line(rows, processor):
    with pytest.raises(HfChainError, match=r"12 of 13 rows of train are bad \(92.3%\)") as caught:
        check_chat(rows, ChatEncoder(processor, max_length=60), name="train")
    message = str(caught.value)
    assert "raise max_bad_share (now 0.01)" in message and "\n" not in message


def test_a_scan_is_remembered_for_the_same_encoder_only(rows, processor, monkeypatch):
    scans = []
    scan = quality_module._scan
    monkeypatch.setattr(quality_module, "_scan", lambda *arguments: scans.append(1) or scan(*arguments))
    for max_length, expected in ((60, 1), (60, 1), (80, 2)):
        check_chat(rows, ChatEncoder(processor, max_length=max_length), max_bad_share=0.95)
        assert len(scans) == expected


def test_a_failed_scan_is_repeated_and_a_changed_file_is_noticed(rows, pictures, processor):
    encoder, broken = ChatEncoder(processor), rows.select([0, 1, 0])
    with pytest.raises(HfChainError, match="1 of 3 rows"):
        check_chat(broken, encoder, max_bad_share=0.1)
    pictures[1].write_bytes(pictures[0].read_bytes())
    assert len(check_chat(broken, encoder, max_bad_share=0.1)) == 3
    pictures[0].unlink()
    with pytest.raises(HfChainError, match="2 of 3 rows"):
        check_chat(broken, encoder, max_bad_share=0.1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_skips_and_records_bad_rows(rows, processor, tmp_path, workers):
    report = tmp_path / "bad.jsonl"
    stream = ChatStream(
        rows.to_iterable_dataset(num_shards=2),
        ChatEncoder(processor, max_length=60),
        max_bad_share=1.0,
        report_file=report,
    )
    kept = list(DataLoader(stream, batch_size=None, num_workers=workers))
    assert len(kept) == 4 and all(row["length"] for row in kept)
    assert len(report.read_text().splitlines()) == len(PROBLEMS)


def test_a_stream_stops_past_the_share(rows, processor):
    stream = ChatStream(rows.to_iterable_dataset(), ChatEncoder(processor, max_length=60), max_bad_share=0.5)
    with pytest.raises(HfChainError, match="12 of 13 rows of the stream are bad"):
        list(stream)
