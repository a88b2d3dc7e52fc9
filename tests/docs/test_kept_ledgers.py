"""Ledgers that pages of benchmarks are made from are whole, and say nothing of the machine's folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_chain.runs.ledger import from_line
from support.recipes import REPOSITORY

LEDGERS = sorted((REPOSITORY / "docs" / "benchmarks").glob("*/ledgers/*/ledger.jsonl"))


def texts(value: Any) -> Iterator[str]:
    """All strings in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts(one)


@pytest.mark.parametrize("path", LEDGERS, ids=lambda path: f"{path.parts[-4]}/{path.parent.name}")
def test_a_kept_ledger_is_whole_and_of_no_machine(path: Path) -> None:
    lines = [from_line(line) for line in path.read_bytes().splitlines()]
    assert lines and all(whole for _, whole in lines)
    assert [text for entry, _ in lines for text in texts(entry) if Path(text).is_absolute()] == []


def test_there_are_ledgers() -> None:
    assert len(LEDGERS) > 20
