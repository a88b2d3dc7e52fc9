"""Fixtures that every room's tests may use."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import pytest

from support.own_home import enter_empty_folder, enter_own_home

HOME = enter_own_home()

from transformers import set_seed  # noqa: E402
from transformers.utils import logging  # noqa: E402

from support.checkout import checkout  # noqa: E402, F401
from support.command_line import hf_chain  # noqa: E402, F401

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


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what has been imported, a million objects: every Trainer calls it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin every test, its fixtures included, alike, whichever ran before it in its worker and wherever pytest began:
    with the same random numbers, in an empty folder, with what is said only once not said yet.
    """
    set_seed(0)
    logging.warning_once.cache_clear()
    logging.info_once.cache_clear()
    enter_empty_folder(HOME)
