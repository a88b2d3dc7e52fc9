"""Captions from columns and from class names."""

from __future__ import annotations

import math

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from hf_chain.data import PROMPT_TEMPLATES, DataSettings, class_names
from hf_chain.data.captions import CaptionReader, class_number
from hf_chain.errors import HfChainError


def reader(features=None, **options):
    return CaptionReader(DataSettings(source="folder", **options), features)


def test_one_text_and_a_list_are_both_captions():
    captions = reader(caption_column="text")
    assert captions.captions({"text": " a dog "}) == (["a dog"], [])
    assert captions.captions({"text": ["a dog", "a cat"]}) == (["a dog", "a cat"], [])


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("  ", "empty"),
        (None, "None"),
        (math.nan, "NaN"),
        (7, "int"),
        (b"a", "bytes"),
        ([], "no captions"),
        (["", None], "empty"),
    ],
)
def test_unusable_captions_are_named(value, problem):
    usable, problems = reader(caption_column="text").captions({"text": value})
    assert usable == [] and problem in problems[0]


def test_one_bad_caption_leaves_the_others():
    usable, problems = reader(caption_column="text").captions({"text": ["a dog", "", "a cat"]})
    assert usable == ["a dog", "a cat"] and problems == ["caption 1 is empty"]


def test_class_names_fill_every_template():
    features = Features({"label": ClassLabel(names=["red_panda", "ox"])})
    captions, _ = reader(features, label_column="label").captions({"label": 0})
    assert captions == [template.replace("{}", "red panda") for template in PROMPT_TEMPLATES["clip"]]
    assert len(set(captions)) == 80


@pytest.mark.parametrize("names", [["goldfish", "Carassius auratus"], "goldfish, Carassius auratus"])
def test_all_names_of_a_class_or_the_first_are_used(names):
    options = {"class_names_column": "names", "prompt_templates": ["a {}", "the {}"]}
    assert reader(**options).captions({"names": names})[0] == ["a goldfish", "the goldfish"]
    both = reader(**options, class_names_used="all").captions({"names": names})[0]
    assert both == ["a goldfish", "the goldfish", "a Carassius auratus", "the Carassius auratus"]


def test_given_names_replace_those_of_the_source():
    features = Features({"label": ClassLabel(names=["n01", "n02"])})
    captions = reader(features, label_column="label", class_names=["dog", ["cat", "kitty"]], prompt_templates=["{}"])
    assert captions.captions({"label": 1})[0] == ["cat"]


@pytest.mark.parametrize(
    "text",
    ['["a dog", "a cat"]', " ['a dog', 'a cat'] ", '["a dog", "", "a cat"]', "['a dog'\n \"a cat\"]"],
    ids=["JSON", "Python", "a gap", "numpy"],
)
def test_a_list_that_is_written_as_text_is_read_as_a_list(text):
    assert reader(caption_column="text").captions({"text": text})[0] == ["a dog", "a cat"]
    assert reader(class_names_column="text", prompt_templates=["{}"], class_names_used="all").captions({"text": text})[
        0
    ] == ["a dog", "a cat"]


def test_brackets_alone_make_no_list():
    assert reader(caption_column="text").captions({"text": "[a dog barks]"}) == (["[a dog barks]"], [])
    assert reader(caption_column="text").captions({"text": "[]"}) == ([], ["there are no captions"])
    assert reader(caption_column="text").captions({"text": "[" * 100_000 + "]"})[0] == ["[" * 100_000 + "]"]


@pytest.mark.parametrize(
    "label", [None, -1, 2, 0.5, math.nan, math.inf, "dog", [1], {"a": 1}, b"1", np.int64(-1), np.float32(0.5), 10**400]
)
def test_a_label_that_is_no_class_is_a_problem(label):
    features = Features({"label": Value("int64")})
    usable, problems = reader(features, label_column="label", class_names=["dog", "cat"]).captions({"label": label})
    assert usable == [] and problems[0].startswith("label ") and len(problems[0]) < 150


@pytest.mark.parametrize("label", [1, 1.0, True, np.int64(1), np.float32(1), np.bool_(True)])
def test_a_whole_number_of_any_type_is_a_class(label):
    assert class_number(label, 2) == 1 and type(class_number(label)) is int


@pytest.mark.parametrize("feature", [Value("string"), List(Value("int64")), {"a": Value("int64")}, Value("binary")])
def test_a_label_column_of_another_kind_is_refused_at_once(feature):
    with pytest.raises(HfChainError, match="label_column 'label' holds .*, not one class number a row") as caught:
        reader(Features({"label": feature}), label_column="label", class_names=["dog", "cat"])
    assert "\n" not in str(caught.value)


def test_a_huge_label_leaves_a_class_without_name_and_takes_no_memory():
    rows = Dataset.from_dict({"label": [0, 10**15], "names": ["dog", "cat"]})
    with pytest.raises(HfChainError, match="class 1 has no name"):
        class_names(rows, DataSettings(source="folder", label_column="label", class_names_column="names"))


def test_class_names_are_found_beside_bad_labels():
    rows = Dataset.from_dict({"label": [0, -1, None, 1], "names": ["dog", "?", "?", "cat"]})
    settings = DataSettings(source="folder", label_column="label", class_names_column="names")
    assert class_names(rows, settings) == [("dog",), ("cat",)]


@pytest.mark.parametrize("second, warned", [("crane", True), ("heron", False)])
def test_two_classes_of_one_name_are_warned_about(second, warned, caplog):
    settings = DataSettings(source="folder", label_column="label", class_names=["crane", second])
    with caplog.at_level("WARNING"):
        assert class_names(Dataset.from_dict({"label": [0, 1]}), settings) == [("crane",), (second,)]
    assert ("classes 0 and 1 are both called 'crane'" in caplog.text) == warned


def test_numbers_without_names_are_refused_at_once():
    with pytest.raises(HfChainError, match="'label' holds numbers without names"):
        reader(Features({"label": Value("int64")}), label_column="label")


@pytest.mark.parametrize("used, of_the_ox", [("first", ("ox",)), ("all", ("ox", "bull"))])
def test_classes_are_judged_by_the_names_that_captions_are_made_of(used, of_the_ox):
    features = Features({"label": ClassLabel(names=["fish", "ox"]), "names": List(Value("string"))})
    rows = Dataset.from_dict({"label": [1, 0, 1], "names": [["ox", "bull"], ["fish"], ["ox", "bull"]]}, features)
    settings = DataSettings(source="folder", label_column="label", class_names_column="names", class_names_used=used)
    assert class_names(rows, settings) == [("fish",), of_the_ox]
    assert class_names(rows.select([1]), settings) == [("fish",), ("ox",)]


def test_tiny_imagenet_has_two_hundred_named_classes(shared):
    from hf_chain.data import load_splits

    settings = DataSettings(
        source=str(shared / "data" / "tiny-imagenet"),
        label_column="label",
        class_names_column="names",
        train_split="validation[:20]",
    )
    names = class_names(load_splits(settings)["validation"], settings)
    assert len(names) == 200 and names[0] == ("goldfish",)
