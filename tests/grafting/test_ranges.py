"""Ranges of layers: read, checked, and turned into what stays."""

from __future__ import annotations

import pytest

from hf_chain.errors import HfChainError
from hf_chain.grafting.ranges import LayerRange, as_ranges, check_ranges, kept_layers, parse_ranges, translator_layers


def test_ranges_are_read() -> None:
    assert parse_ranges("16-26") == (LayerRange(16, 26),)
    assert parse_ranges("3-5, 8-10") == (LayerRange(3, 5), LayerRange(8, 10))
    assert parse_ranges("7") == (LayerRange(7, 7),)
    assert as_ranges(range(4, 8)) == as_ranges("4-7") == (LayerRange(4, 7),)
    assert as_ranges([range(1, 3), "5-6"]) == (LayerRange(1, 2), LayerRange(5, 6))
    assert str(LayerRange(3, 5)) == "3-5" and len(LayerRange(3, 5)) == 3


@pytest.mark.parametrize("text", ["", "a-b", "3-", "-3", "3-5-7", "3..5", "3-5,,7-9", "1.5-3"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(HfChainError, match="cannot be read: write FIRST-LAST") as caught:
        parse_ranges(text)
    assert "\n" not in str(caught.value)


def test_published_cuts() -> None:
    # Table in the paper: target layers, replaced range, layers left.
    for layers, text, left in ((28, "16-26", 18), (32, "17-30", 19), (80, "40-78", 42), (36, "22-34", 24)):
        ranges = check_ranges(parse_ranges(text), layers)
        kept = kept_layers(ranges, layers)
        assert len(kept) == left
        assert kept[-1] == layers - 1
        assert translator_layers(ranges, layers) == (ranges[0].first,)


def test_several_ranges_and_translators() -> None:
    ranges = check_ranges(parse_ranges("8-10,2-5"), 12, 2)
    assert ranges == (LayerRange(2, 5), LayerRange(8, 10))
    assert kept_layers(ranges, 12, 2) == (0, 1, 2, 3, 6, 7, 8, 9, 11)
    assert translator_layers(ranges, 12, 2) == (2, 3, 6, 7)


@pytest.mark.parametrize(
    ("text", "translators", "message"),
    [
        ("5-3", 1, "layer range 5-3 is empty.*did you mean 3-5"),
        ("3-12", 1, "3-12 reaches outside of the model, which has 12 layers: stay in 0-11"),
        ("14-20", 1, "14-20 reaches outside"),
        ("3-11", 1, "3-11 replaces the model's last layer.*end at 10"),
        ("3-4", 2, "3-4 has 2 layers for translators=2, so nothing is dropped"),
        ("7", 1, "7-7 has 1 layers for translators=1"),
        ("2-6,6-9", 1, "2-6 and 6-9 overlap"),
        ("4-8,2-5", 1, "2-5 and 4-8 overlap"),
        ("3-5", 0, "translators=0"),
    ],
)
def test_bad_ranges_are_refused_in_one_line(text: str, translators: int, message: str) -> None:
    with pytest.raises(HfChainError, match=message) as caught:
        check_ranges(parse_ranges(text), 12, translators)
    assert "\n" not in str(caught.value)


def test_no_range_and_negative_layers_are_refused() -> None:
    with pytest.raises(HfChainError, match="no layer range is given"):
        check_ranges((), 12)
    with pytest.raises(HfChainError, match="reaches outside"):
        check_ranges((LayerRange(-2, 4),), 12)
