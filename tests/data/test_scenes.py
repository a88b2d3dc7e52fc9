"""The rendered scenes keep their promises: true captions, disjoint splits, held-out pairs, the same everywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from hf_chain.data.scenes import HELD_OUT_PAIRS
from hf_chain.data.scenes.renderer import COLOR_VALUES, generate_scenes

NUMBERS = {"a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7}
PLURALS = {"crosses": "cross"}
THING = r"(a|one|two|three|four|five|six|seven) (?:(large|medium|small) )?(\w+) (\w+)"
COLUMNS = {"left": 0, "right": 2}
ROWS = {"top": 0, "bottom": 2}


def objects_of(row):
    """All objects of a row's scene, read from its JSON only."""
    scene = json.loads(row["scene"])
    return [placed for group in (scene["main"], *scene["groups"]) for placed in group["objects"]]


def things(text):
    """Every (count, size, colour, shape) that a caption names."""
    found = []
    for number, size, color, noun in re.findall(THING, text):
        if color in COLOR_VALUES:
            shape = PLURALS.get(noun, noun if noun in ("cross",) else noun.removesuffix("s"))
            found.append((NUMBERS[number], size or None, color, shape))
    return found


def test_no_scene_is_in_two_splits(scenes):
    seen = {}
    for split, rows in scenes.items():
        for row in rows.select_columns(["captions"]):
            # The first caption names every object, the pattern and the background.
            assert seen.setdefault(row["captions"][0], split) == split


def test_a_larger_split_begins_with_the_smaller_one():
    small = list(generate_scenes("train", 5, 32, seed=1))
    large = list(generate_scenes("train", 9, 32, seed=1))
    assert large[:5] == small


def test_held_out_pairs_never_occur_in_training(scenes):
    for split in ("train", "validation", "test"):
        names = scenes[split].features["label"].names
        for row in scenes[split].remove_columns("image"):
            texts = [*row["captions"], *(part for qa in row["questions"] for part in qa.values())]
            assert not {(o["color"], o["shape"]) for o in objects_of(row)} & HELD_OUT_PAIRS
            assert tuple(names[row["label"]].split()) not in HELD_OUT_PAIRS
            for color, shape in HELD_OUT_PAIRS:
                assert not any(f"{color} {shape}" in text for text in texts)


def test_compositional_split_holds_only_held_out_pairs(scenes):
    pairs = {(o["color"], o["shape"]) for row in scenes["compositional"] for o in objects_of(row)}
    assert pairs == HELD_OUT_PAIRS


def test_every_held_out_word_is_learnt_in_another_pair(scenes):
    learnt = {(o["color"], o["shape"]) for row in scenes["train"] for o in objects_of(row)}
    for color, shape in HELD_OUT_PAIRS:
        assert color in {pair[0] for pair in learnt} and shape in {pair[1] for pair in learnt}


@pytest.mark.parametrize("split", ["train", "compositional"])
def test_pixels_show_the_objects_of_the_description(scenes, split):
    for row in scenes[split]:
        image = row["image"]
        assert image.size == (64, 64) and image.mode == "RGB"
        for placed in objects_of(row):
            pixel = image.getpixel((int(placed["x"] * 64), int(placed["y"] * 64)))
            nearest = min(
                COLOR_VALUES,
                key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOR_VALUES[name], pixel, strict=True)),
            )
            assert nearest == placed["color"], (row["captions"], placed, pixel)


def test_captions_name_only_what_is_there(scenes):
    for row in scenes["train"]:
        present = {}
        for placed in objects_of(row):
            key = (placed["size"], placed["color"], placed["shape"])
            present[key] = present.get(key, 0) + 1
        for caption in row["captions"]:
            assert things(caption), caption
            for count, size, color, shape in things(caption):
                fitting = {n for (s, c, f), n in present.items() if (c, f) == (color, shape) and size in (None, s)}
                assert fitting == {count}, (caption, present)
        full = things(row["captions"][0])
        assert {(size, color, shape): count for count, size, color, shape in full} == present


def test_captions_name_background_place_and_number_truly(scenes):
    for row in scenes["train"]:
        scene, count = json.loads(row["scene"]), len(objects_of(row))
        for caption in row["captions"]:
            for pattern, ground in re.findall(r"(\w+) (\w+) background", caption):
                assert (pattern, ground) == (scene["pattern"], scene["background"])
            for number in re.findall(r"(\w+) shapes?\b", caption):
                assert NUMBERS[number] == count
            for place in re.findall(
                r"(?:at the|on the|in the) ((?:top|bottom|left|right|centre)(?: left| right)?)", caption
            ):
                words = place.split()
                column = next((COLUMNS[word] for word in words if word in COLUMNS), 1)
                line = next((ROWS[word] for word in words if word in ROWS), 1)
                main = scene["main"]["objects"][0]
                assert (int(main["x"] * 3), int(main["y"] * 3)) == (column, line), caption


def test_relations_hold_between_the_positions(scenes):
    seen = set()
    for row in scenes["train"]:
        where = {(o["color"], o["shape"]): o for o in objects_of(row)}
        for caption in row["captions"]:
            match = re.fullmatch(r"a (\w+) (\w+) (left of|right of|above|below) a (\w+) (\w+)", caption)
            if match:
                first, second = where[match[1], match[2]], where[match[4], match[5]]
                dx, dy = first["x"] - second["x"], first["y"] - second["y"]
                assert {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[match[3]] > 0.02, caption
                seen.add(match[3])
    assert seen == {"left of", "right of", "above", "below"}


def test_every_image_has_at_least_five_different_captions(scenes):
    for rows in scenes.values():
        assert all(len(set(captions)) == len(captions) >= 5 for captions in rows["captions"])


def test_label_is_the_one_large_object(scenes):
    names = scenes["train"].features["label"].names
    for row in scenes["train"].remove_columns("image"):
        large = [o for o in objects_of(row) if o["size"] == "large"]
        assert [f"{o['color']} {o['shape']}" for o in large] == [names[row["label"]]]


def test_answers_are_true(scenes):
    kinds = set()
    for row in scenes["train"].remove_columns("image"):
        scene, placed = json.loads(row["scene"]), objects_of(row)
        where = {(o["color"], o["shape"]): o for o in placed}
        for qa in row["questions"]:
            question, answer = qa["question"], qa["answer"]
            if question == "what colour is the largest shape?":
                truth = placed[0]["color"]
            elif question == "what is the largest shape?":
                truth = placed[0]["shape"]
            elif question == "what colour is the background?":
                truth = scene["background"]
            elif question.startswith("is the background"):
                truth = scene["pattern"]
            elif question == "how many shapes are there?":
                truth, answer = len(placed), NUMBERS[answer]
            elif match := re.fullmatch(r"how many (\w+) (\w+) are there\?", question):
                shape = PLURALS.get(match[2], match[2].removesuffix("s"))
                truth, answer = sum((o["color"], o["shape"]) == (match[1], shape) for o in placed), NUMBERS[answer]
            elif match := re.fullmatch(r"is there a (\w+) (\w+)\?", question):
                truth = "yes" if (match[1], match[2]) in where else "no"
            else:
                match = re.fullmatch(r"is the (\w+) (\w+) (left of|right of|above|below) the (\w+) (\w+)\?", question)
                first, second = where[match[1], match[2]], where[match[4], match[5]]
                dx, dy = first["x"] - second["x"], first["y"] - second["y"]
                truth = "yes" if {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[match[3]] > 0 else "no"
            assert answer == truth, (question, qa["answer"], placed)
            kinds.add((question.split()[1], qa["answer"]))
    assert {("there", "yes"), ("there", "no")} <= kinds


def test_scenes_and_fingerprints_are_equal_in_every_process(tmp_path):
    code = (
        "import hashlib, sys\n"
        "from hf_chain.data import DataSettings, load_splits\n"
        "splits = load_splits(DataSettings(scenes=dict(train=30, validation=5, test=5, compositional=5)))\n"
        "rows = hashlib.sha256(repr([(r['captions'], r['questions'], r['image'].tobytes())\n"
        "    for s in splits.values() for r in s]).encode()).hexdigest()\n"
        "print(rows, [s._fingerprint for s in splits.values()])\n"
    )
    outputs = set()
    for number in (1, 2):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": str(number),
            "HF_HOME": str(tmp_path / str(number)),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("HF_DATASETS_CACHE", None)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1
