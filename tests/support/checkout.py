"""A checkout as it is right after `git clone`, whatever else lies in the one that is tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.recipes import REPOSITORY

GIVEN = ("benchmarks", "docs", "examples", "README.md")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the test: what users run commands on, and `../shared` where there is one."""
    folder = tmp_path / "beside" / "hf_chain"
    folder.mkdir(parents=True)
    for name in GIVEN:
        (folder / name).symlink_to(REPOSITORY / name)
    if (shared := REPOSITORY.parent / "shared").is_dir():
        (folder.parent / "shared").symlink_to(shared)
    monkeypatch.chdir(folder)
    return folder
