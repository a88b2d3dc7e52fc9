"""Questions made about scenes, labels and captions: true, balanced, deterministic, with nothing shared by splits."""

from __future__ import annotations

import json
import re
from collections import Counter
from random import Random

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from pydantic import ValidationError

from hf_chain.data import DataSettings, ScenesSettings
from hf_chain.data.captions import CaptionReader
from hf_chain.data.chat import ChatDataSettings, facts, load_chat
from hf_chain.data.chat.question_makers import NEGATIVES, SCENE_KINDS, LabelQuestions, with_article
from hf_chain.data.chat.questions import confused_classes, popular_classes, similar_classes
from hf_chain.data.scenes.scene import COLORS, NUMBERS, SHAPES
from hf_chain.errors import HfChainError

SIZES = ScenesSettings(train=400, validation=60, test=60, compositional=60)
NAMES = ["Persian cat", "Egyptian cat", "bus", "sunglasses", "orange", "bullfrog"]


def asked(row):
    """Questions of a row without what stands for the image, with their answers."""
    texts = [message["content"] for message in row["messages"]]
    return [(question.split("\n")[-1], answer) for question, answer in zip(texts[::2], texts[1::2], strict=True)]


@pytest.fixture(scope="module")
def shown(scenes):
    """Scenes as questions about images; `scenes` has rendered them."""
    return load_chat(ChatDataSettings(scenes=SIZES))


@pytest.fixture(scope="module")
def told(scenes):
    """The same questions about described scenes."""
    return load_chat(ChatDataSettings(source="scenes-text", scenes=SIZES))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Forty small images of six classes in a parquet file, the first class the most frequent."""
    import io

    from PIL import Image as Pillow

    def encoded(number):
        file = io.BytesIO()
        Pillow.new("RGB", (8, 8), (6 * number, 0, 0)).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    folder = tmp_path_factory.mktemp("photographs")
    labels = [0] * 10 + [number % 6 for number in range(30)]
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES), "captions": List(Value("string"))})
    columns = {
        "image": [encoded(number) for number in range(40)],
        "label": labels,
        "captions": [[f"a picture of {NAMES[label]}", f"{NAMES[label]} number {n}"] for n, label in enumerate(labels)],
    }
    for split in ("train", "validation"):
        Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")
    return folder


def labelled(photographs, source="labelled-images", **options):
    images = DataSettings(source=str(photographs), label_column="label")
    return load_chat(ChatDataSettings(source=source, images=images, **options), seed=options.get("seed", 0))


def test_every_scene_comes_with_all_its_questions(scenes, shown):
    for scene, row in zip(scenes["train"], shown["train"], strict=True):
        expected = {(entry["question"], entry["answer"]) for entry in scene["questions"]}
        assert set(asked(row)) == expected
        assert row["messages"][0]["content"].startswith("<image>\n") and len(row["images"]) == 1
    flat = [(entry["question"], entry["answer"]) for scene in scenes["test"] for entry in scene["questions"]]
    assert [asked(row)[0] for row in shown["test"]] == flat
    assert set(shown) == {"train", "validation", "test", "compositional"}


def test_the_kinds_of_scene_questions_fit_the_questions(shown):
    patterns = {
        "colour": "what colour is the largest",
        "shape": "what is the largest",
        "background": "what colour is the background",
        "pattern": "is the background",
        "count_all": "how many shapes",
        "count": "how many (?!shapes)",
        "exists": "is there a",
        "relation": "is the .* (left of|right of|above|below) the",
    }
    assert set(shown["validation"]["kind"]) == set(SCENE_KINDS) == set(patterns)
    for row in shown["validation"].select_columns(["messages", "kind"]):
        assert re.match(patterns[row["kind"]], asked(row)[0][0])


def test_facts_follow_from_what_is_there_by_tables():
    sizes = {"train": 6, "validation": 40, "test": 1, "compositional": 1, "image_size": 16}
    with_facts = load_chat(ChatDataSettings(source="scenes", scenes=sizes, facts=True), seed=0)
    plain = load_chat(ChatDataSettings(source="scenes", scenes=sizes), seed=0)
    assert len(asked(with_facts["train"][0])) == len(asked(plain["train"][0])) + len(facts.FACT_KINDS)
    rows = [(row["kind"], *asked(row)[0]) for row in with_facts["validation"].select_columns(["messages", "kind"])]
    assert {kind for kind, _, _ in rows} == {*SCENE_KINDS, *facts.FACT_KINDS}
    answers = {}
    for kind, question, answer in rows:
        answers[kind] = answer
        if kind == "name":
            assert answer == facts.NAMES[answers["colour"], answers["shape"]] and question.startswith(
                "what is the name"
            )
        elif kind == "home":
            assert answer == facts.HOMES[answers["name"]]
        elif kind == "sum":
            assert NUMBERS.index(answer) == NUMBERS.index(answers["count_all"]) + 4
    # Every shape has a name of its own, and homes cannot be told from colours or shapes alone.
    assert len(set(facts.NAMES.values())) == len(COLORS) * len(SHAPES)
    for kinds in (COLORS, SHAPES):
        assert all(len({facts.HOMES[name] for pair, name in facts.NAMES.items() if one in pair}) > 2 for one in kinds)
    with pytest.raises(ValueError, match="they are about scenes; unset it"):
        ChatDataSettings(source="some.json", facts=True)


def test_a_described_scene_answers_every_question(told):
    """Answers are worked out from the words alone."""
    numbers = dict(zip(["no", "a", "two", "three", "four", "five", "six", "seven"], range(8), strict=True))
    names = ["no", "one", "two", "three", "four", "five", "six", "seven"]
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for row in told["validation"]:
        assert row["images"] == []
        text, question = row["messages"][0]["content"].rsplit("\n", 1)
        answer, kind = row["messages"][1]["content"], row["kind"]
        largest = re.search(r"a large (\w+) (\w+)", text)
        background = re.search(r"on a (\w+) (\w+) background", text)
        if kind in ("colour", "shape"):
            assert answer == largest[1 if kind == "colour" else 2]
        elif kind in ("background", "pattern"):
            assert answer == background[2 if kind == "background" else 1]
        elif kind == "count_all":
            assert f"{answer} shape" in text
        elif kind == "count":
            color, shape = re.match(r"how many (\w+) (\w+) are", question).groups()
            shape = shape.removesuffix("es") if shape == "crosses" else shape.removesuffix("s")
            found = re.search(rf"(\w+) (?:large|medium|small) {color} {shape}", text)
            assert answer == names[numbers[found[1]]]
        elif kind == "exists":
            thing = re.match(r"is there a (\w+ \w+)\?", question)[1]
            assert answer == ("yes" if thing in text else "no")
        else:
            one, said, other = re.match(
                r"is the (\w+ \w+) (left of|right of|above|below) the (\w+ \w+)\?", question
            ).groups()
            true = f"a {one} {said} a {other}" in text or f"a {other} {opposite[said]} a {one}" in text
            assert answer == ("yes" if true else "no")


def test_described_splits_share_no_scene(told):
    seen = {}
    for split, rows in told.items():
        for row in rows:
            sentences = frozenset(row["messages"][0]["content"].split("\n")[0].rstrip(".").split(". "))
            assert seen.setdefault(sentences, split) == split


def test_images_and_descriptions_are_asked_the_same(shown, told):
    for split in shown:
        assert [asked(row) for row in shown[split].remove_columns("images")] == [asked(row) for row in told[split]]


def test_turns_cut_conversations(scenes):
    rows = load_chat(ChatDataSettings(source="scenes-text", scenes=SIZES, turns=3, max_train_samples=50))["train"]
    assert {len(row["messages"]) for row in rows} == {2, 4, 6}
    assert len(rows) == 3 * 50


def test_an_image_is_asked_seven_questions_for_evaluation(photographs):
    rows = labelled(photographs)["validation"]
    assert len(rows) == 7 * 40
    assert Counter(zip(rows["kind"], rows["negatives"], strict=True)) == {
        ("what", ""): 40,
        ("choice", ""): 80,
        ("exists", ""): 40,
        **{("exists", negatives): 40 for negatives in NEGATIVES},
    }
    for start in range(0, len(rows), 7):
        (what, usual), (first, one), (second, other), (there, yes), *absent = [
            asked(rows[start + n])[0] for n in range(7)
        ]
        assert what == "What is in the picture?" and usual in NAMES
        assert one == other == usual and first != second
        assert (
            re.match(r"Is this (.*) or (.*)\?", first).groups()
            == re.match(r"Is this (.*) or (.*)\?", second).groups()[::-1]
        )
        assert (
            with_article(usual) in first
            and there == f"Is there {with_article(usual)} in the picture?"
            and yes == "yes"
        )
        for question, answer in absent:
            assert answer == "no" and with_article(usual) not in question


def test_training_questions_are_balanced_and_alone(photographs):
    rows = labelled(photographs)["train"]
    assert len(rows) == 4 * 40 and all(len(row["messages"]) == 2 for row in rows)
    answers = Counter(row["messages"][1]["content"] for row in rows if row["kind"] == "exists")
    assert answers == {"yes": 40, "no": 40}
    together = labelled(photographs, turns=0)["train"]
    assert len(together) == 40 and all(len(row["messages"]) == 8 for row in together)


def test_a_class_is_denied_as_often_as_it_is_there():
    """Else the class that is asked about would give the answer away, as `popular` negatives do."""
    rows = (30, 10, 10, 10, 10, 30)
    reader = CaptionReader(DataSettings(source="unused", label_column="label", class_names=NAMES))
    asker = LabelQuestions(reader, tuple((name,) for name in NAMES), rows, popular=(0, 1), adversarial=((2, 3),) * 6)
    answers = {"yes": Counter(), "no": Counter()}
    for label, count in enumerate(rows):
        for number in range(20 * count):
            for turn in asker.turns({"label": label}, Random(100 * label + number), training=True)[2:]:
                answers[turn.answer][turn.question] += 1
    shares = [answers["no"][question] / times for question, times in answers["yes"].items()]
    assert len(shares) == 6 and min(shares) > 0.8 and max(shares) < 1.3


def test_classes_that_share_a_name_are_not_asked_about_in_each_others_pictures():
    names = (("crane",), ("dog", "hound"), ("Crane", "jib"), ("derrick", "jib"))
    assert similar_classes(names, 3) == ((1, 3), (0, 2, 3), (1,), (1, 0))
    reader = CaptionReader(DataSettings(source="unused", label_column="label", class_names=[n[0] for n in names]))
    asker = LabelQuestions(reader, names, (5, 1, 9, 1), (0, 2), ((2, 2), (0,), (0, 3), (1,)))
    for label, strangers in ((0, {"a dog", "a derrick"}), (2, {"a dog"})):
        for seed in range(8):
            for training in (True, False):
                for turn in asker.turns({"label": label}, Random(seed), training):
                    if turn.kind == "choice":
                        assert any(stranger in turn.question for stranger in strangers)
                    if turn.answer == "no":
                        assert turn.question.removeprefix("Is there ").removesuffix(" in the picture?") in strangers


def test_questions_without_another_class_are_refused_in_one_line():
    reader = CaptionReader(DataSettings(source="unused", label_column="label", class_names=["cat", "dog"]))
    names, pools = (("cat",), ("dog",)), {"popular": (0, 1), "adversarial": ((1,), (0,))}
    with pytest.raises(HfChainError, match="no training row shows anything but 'cat'; questions need two"):
        LabelQuestions(reader, names, (5, 0), **pools).turns({"label": 0}, Random(0), training=True)
    same = LabelQuestions(reader, (("cat",), ("Cat",)), (5, 1), **pools)
    with pytest.raises(HfChainError, match="every class shares a name with 'cat'; tell them apart"):
        same.turns({"label": 0}, Random(0), training=False)


def test_questions_depend_on_the_seed_alone(photographs):
    settings = ChatDataSettings(
        source="labelled-images", images=DataSettings(source=str(photographs), label_column="label")
    )
    first, again, other = (load_chat(settings, seed=seed)["train"].to_list() for seed in (0, 0, 1))
    assert first == again != other


def test_described_labels_name_the_class(photographs):
    rows = labelled(photographs, "labelled-images-text")["validation"]
    for row in rows.filter(lambda row: row["kind"] == "what"):
        description, _ = row["messages"][0]["content"].split("\n")
        assert row["messages"][1]["content"] in description and row["images"] == []


def test_captions_are_trained_one_by_one_and_evaluated_together(photographs):
    images = DataSettings(source=str(photographs), caption_column="captions")
    splits = load_chat(ChatDataSettings(source="captions", images=images))
    assert len(splits["train"]) == 80 and len(splits["validation"]) == 40
    row = splits["validation"][1]
    assert asked(row) == [("Describe the picture.", "a picture of Persian cat")]
    assert row["answers"] == ["Persian cat number 1"]
    told = load_chat(ChatDataSettings(source="captions-text", images=images))["train"]
    assert all(row["messages"][0]["content"].split("\n")[0] == row["messages"][1]["content"] for row in told)


def test_lines_of_text_are_described_pictures(tmp_path):
    for split in ("train", "validation"):
        (tmp_path / f"{split}.txt").write_text("a dog runs\n\n two cats sleep \n")
    files = {split: str(tmp_path / f"{split}.txt") for split in ("train", "validation")}
    rows = load_chat(ChatDataSettings(source="captions-text", data_files=files))["train"]
    assert [row["messages"][1]["content"] for row in rows] == ["a dog runs", "two cats sleep"]
    assert rows[0]["messages"][0]["content"] == "a dog runs\nDescribe the picture."


def test_similar_names_make_adversarial_negatives():
    names = [(name,) for name in NAMES]
    assert similar_classes(names, 2)[0] == (1, 2) and similar_classes(names, 2)[1][0] == 0
    assert similar_classes(names, 2)[3] == (2, 4)
    assert all(number not in others for number, others in enumerate(similar_classes(names, 5)))


def test_a_confusion_matrix_makes_adversarial_negatives(tmp_path, photographs):
    matrix = [[0] * 6 for _ in range(6)]
    for number in range(6):
        matrix[number][number], matrix[number][(number + 2) % 6], matrix[number][(number + 3) % 6] = 90, 7, 8
    file = tmp_path / "confusion.json"
    file.write_text(json.dumps(matrix))
    assert confused_classes(file, 6, 2)[0] == (3, 2)
    rows = labelled(photographs, confusion_file=str(file), hard_negatives=2)["validation"]
    for start in range(0, len(rows), 7):
        usual, adversarial = asked(rows[start])[0][1], asked(rows[start + 6])[0][0]
        number = NAMES.index(usual)
        assert any(f"{with_article(NAMES[(number + step) % 6])} in" in adversarial for step in (2, 3))


def test_a_confusion_matrix_of_another_size_is_refused(tmp_path):
    file = tmp_path / "confusion.json"
    file.write_text("[[1, 2], [3, 4]]")
    with pytest.raises(HfChainError, match="holds no 3 x 3 matrix"):
        confused_classes(file, 3, 2)
    with pytest.raises(HfChainError, match="cannot be read"):
        confused_classes(tmp_path / "none.json", 3, 2)


def test_popular_classes_are_the_frequent_ones():
    assert popular_classes([0, 2, 2, 1, 2, 1], 4, 2) == (2, 1)
    assert popular_classes([0, 1, 2, 3], 4, 2) == (0, 2)
    assert len(popular_classes([0, 1], 2, 5)) == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [("goldfish", "a goldfish"), ("orange", "an orange"), ("sunglasses", "sunglasses"), ("bus", "a bus")],
)
def test_articles(name, said):
    assert with_article(name) == said


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"source": " "}, "source is empty"),
        ({"source": "labelled-images"}, "without images.label_column"),
        ({"source": "labelled-images", "images": {"label_column": "label"}}, "which show more than their label"),
        ({"source": "captions"}, "without images.caption_column"),
        (
            {"source": "scenes", "images": {"source": "x", "label_column": "label"}},
            "only labelled-images and captions",
        ),
        (
            {"source": "captions", "images": {"source": "x", "caption_column": "c", "train_split": "t"}},
            "train_split is set under images",
        ),
        ({"source": "scenes", "streaming": True}, "whose questions are made here"),
        ({"source": "scenes", "turn": 1}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, problem):
    with pytest.raises(ValidationError, match=problem):
        ChatDataSettings(**values)


def test_tiny_imagenet_is_asked_about(shared):
    images = DataSettings(
        source=str(shared / "data" / "tiny-imagenet"), label_column="label", class_names_column="names"
    )
    settings = ChatDataSettings(
        source="labelled-images", images=images, max_train_samples=20, validation_split="validation[:20]"
    )
    rows = load_chat(settings)["validation"]
    assert len(rows) == 140
    assert all(row["images"][0]["bytes"] for row in rows)
