"""Fixtures that every room's tests may use."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from support.command_line import hf_chain  # noqa: F401

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real photographs that stands beside the checkout in CI; a user's clone does not have it."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared, which stands beside the repository in CI only")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that are mostly slow: the many short ones even out what is left to each worker."""
    tests = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path] / tests[item.path])
