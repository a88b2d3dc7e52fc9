"""A home folder that is made for one session of tests: none of them sees what lies in a user's caches and settings."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

MADE = "HF_CHAIN_TESTS_HOME"
"""Holds the folder for the processes that a session starts, pytest-xdist's workers first of all."""
ELSEWHERE = (
    *("ACCELERATE_", "HF_", "HUGGINGFACE", "HUGGING_FACE", "MPLCONFIGDIR", "PYTORCH_TRANSFORMERS", "TORCHINDUCTOR"),
    *("TORCH_EXTENSIONS_DIR", "TORCH_HOME", "TRACKIO_", "TRANSFORMERS_", "TRITON_", "WANDB_", "XDG_"),
)
"""How variables begin that point to caches, settings or accounts elsewhere than in the home folder."""


def enter_own_home() -> Path:
    """Makes an empty home folder and lets this process and those it starts live there; it is removed at the end.

    Libraries read these variables when they are imported, so it has to be called before. Workers share the folder, so
    that what the first one renders or compiles is there for the others.
    """
    made = os.environ.get(MADE)
    if made is None:
        made = tempfile.mkdtemp(prefix="hf-chain-tests-")
        atexit.register(_remove, made, os.getpid())
    for name in [name for name in os.environ if name.startswith(ELSEWHERE)]:
        del os.environ[name]
    os.environ |= {MADE: made, "HOME": made, "USERPROFILE": made, "TORCHINDUCTOR_CACHE_DIR": f"{made}/inductor"}
    return Path(made)


def enter_empty_folder(home: Path) -> None:
    """Makes an empty folder the working directory."""
    folders = home / "work"
    folders.mkdir(exist_ok=True)
    os.chdir(tempfile.mkdtemp(dir=folders))


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        os.chdir(tempfile.gettempdir())
        shutil.rmtree(folder, ignore_errors=True)
