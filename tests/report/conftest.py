"""Runs to report on."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.report_runs import write_run


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A finished chain of three members."""
    return write_run(tmp_path / "family")


@pytest.fixture
def independent(tmp_path: Path) -> Path:
    """The same members, trained independently."""
    return write_run(tmp_path / "family-independent", independent=True)
