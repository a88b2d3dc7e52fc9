"""Stages that take less than an epoch of a stream go on in it, as otherwise all of them would see its first rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_chain.data.chat.sources import ChatStream
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.lengths import stream_start
from hf_chain.methods.graft.recipe import GraftRecipe, GraftStageSettings
from hf_chain.methods.graft.runner import run_graft
from support.graft_recipes import streamed_graft_values

ROWS = 32


def stage(name: str, epochs: float, data: str = "images", **parts: float) -> GraftStageSettings:
    return GraftStageSettings(name=name, decoder="surrogate", epochs=epochs, data=[data], parts=parts)


@pytest.mark.parametrize(
    ("before", "epochs", "start"),
    [
        ([], 0.5, 0),
        ([0.25], 0.5, 25),
        ([0.25, 0.5], 0.25, 75),
        ([0.25, 0.5], 0.5, 0),  # too few rows are left
        ([2.5], 0.5, 50),
        ([0.5], 1.0, 0),
    ],
)
def test_a_stage_begins_where_those_before_it_stopped(before: list[float], epochs: float, start: int) -> None:
    stages = [stage(f"s{number}", one, adapter=1e-3) for number, one in enumerate(before)]
    last = stage("last", epochs, adapter=1e-3)
    assert stream_start([*stages, last], last, 100) == start


def test_stages_that_read_something_else_do_not_count() -> None:
    last = stage("last", 0.5, adapter=1e-3)
    assert stream_start([stage("other", 0.3, "text", adapter=1e-3), stage("graft", 1.0), last], last, 100) == 0


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GraftRecipe:
    """Two stages of half an epoch each."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    half = {"decoder": "surrogate", "parts": {"adapter": 1e-3}, "epochs": 0.5}
    values = streamed_graft_values(tmp_path, ROWS, [{"name": "first", **half}, {"name": "second", **half}])
    return GraftRecipe.model_validate(values)


def test_two_halves_of_a_stream_are_all_of_it(recipe: GraftRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[Any]] = []
    iterate = ChatStream.__iter__

    def watched(stream: ChatStream) -> Iterator[dict[str, Any]]:
        drawn.append([])
        for row in iterate(stream):
            drawn[-1].append(row["messages"])
            yield row

    monkeypatch.setattr(ChatStream, "__iter__", watched)
    run_graft(recipe)
    whole = [row["messages"] for row in Conversations(recipe).splits("images")["train"]]
    assert len(whole) == ROWS
    # The loader is a batch ahead, in the next pass at the end.
    first, second, *_ = drawn
    assert [*first[: ROWS // 2], *second[: ROWS // 2]] == whole
