"""Fixtures that every room's tests may use."""

from __future__ import annotations

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
