"""Tables and units read well in a terminal."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml

from hf_chain.cost import FamilyCost, clip_member, clip_memory, hours, human, memory_table, plan_table
from hf_chain.cost.table import escaped, markdown_table
from hf_chain.errors import HfChainError


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1K"),
        (27_899_777, "27.9M"),
        (999_600, "1M"),
        (1.2e20, "120E"),
        (-4_200, "-4.2K"),
    ],
)
def test_large_numbers_get_three_digits_and_a_prefix(number, text):
    assert human(number) == text


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_hours_need_a_throughput(speed):
    with pytest.raises(HfChainError, match=f"tflops_per_second is {speed}: give the measured throughput, above 0"):
        hours(1e15, tflops_per_second=speed)


def test_hours_count_two_operations_per_mac():
    assert hours(1.8e15, tflops_per_second=1) == pytest.approx(1.0)
    with pytest.raises(HfChainError, match="tflops_per_second is 0"):
        hours(1, 0)


@pytest.fixture
def family(paper_config) -> FamilyCost:
    small, large = paper_config("T"), paper_config("L")
    return FamilyCost([clip_member("T", small, 128, 1_000), clip_member("L", large, 16, 1_000, teacher=small)])


def test_plan_says_what_the_chain_saves_in_plain_words(family):
    text = plan_table(family, tflops_per_second=100)
    assert f"The chain costs {100 * family.largest_alone_ratio:.1f} % of training the largest member (L) alone" in text
    assert f"costs {family.family_ratio:.2f} times as much as the chain" in text
    assert f"the chain takes {hours(family.chain_macs, 100):.3g} hours" in text


def test_plan_rows_line_up_and_end_with_the_sum(family):
    table = plan_table(family).split("\n\n")[0].splitlines()
    assert len({len(row) for row in table}) == 1
    assert [row.split()[1] for row in table[2:]] == ["T", "L", "all"]
    assert table[-1].split("|")[-3].strip() == human(family.chain_macs)
    assert table[-1].split("|")[-2].strip() == human(family.independent_macs)


def test_memory_table_has_a_row_for_each_member(paper_config):
    estimate = clip_memory(paper_config("T"), micro_batch=4)
    table = memory_table({"T": estimate}).splitlines()
    assert table[0].split("|")[1].strip() == "bytes per device"
    assert table[2].split("|")[-2].strip() == human(estimate.total)


@pytest.mark.parametrize(
    "text",
    [
        "a | b",
        "<b>1 & 2</b> &amp; <script>x</script>",
        "*bold* _it_ snake_case __init__ ~~no~~",
        "[x](javascript:1) ![](file) `code` \\ $y$",
        *("- no list", "+ nor this", "1. nor that", "12) nor that", "# no title", "> no quote", "==="),
    ],
)
def test_text_of_data_is_shown_as_it_is(text):
    """By a renderer, as a paragraph and as a cell."""
    render = MarkdownIt("gfm-like", {"linkify": False}).render
    assert render(escaped(text)) == f"<p>{escapeHtml(text)}</p>\n"
    cells = render(markdown_table(["a", "b"], [["1", escaped(text)]]))
    assert f">{escapeHtml(text)}</td>" in cells and cells.count("<td") == 2


def test_text_of_data_is_one_line():
    assert escaped("one\n\n# two\ttabs") == "one # two tabs"
