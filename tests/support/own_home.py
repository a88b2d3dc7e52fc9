"""A home folder that is made for one session of tests: none of them sees what lies in a user's caches and settings."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import psutil

MADE = "HF_CHAIN_TESTS_HOME"
"""Holds the folder for the processes that a session starts, pytest-xdist's workers first of all."""
ELSEWHERE = (
    *("ACCELERATE_", "HF_", "HUGGINGFACE", "HUGGING_FACE", "MPLCONFIGDIR", "PYTORCH_TRANSFORMERS", "TORCHINDUCTOR"),
    *("TORCH_EXTENSIONS_DIR", "TORCH_HOME", "TRACKIO_", "TRANSFORMERS_", "TRITON_", "WANDB_", "XDG_"),
)
"""How variables begin that point to caches, settings or accounts elsewhere than in the home folder."""
PREFIX = "hf_chain-tests-"
MEMORY, ROOM = "/dev/shm", 8 << 30
"""Files in memory on Linux, and the bytes that have to be free there."""


def enter_own_home() -> Path:
    """Makes an empty home folder and lets this process and those it starts live there; it is removed at the end.

    Libraries read these variables when they are imported, so it has to be called before. Workers share the folder, so
    that what the first one renders or compiles is there for the others. All temporary files are in it, and it is in
    memory where there is room: a run makes sure of hundreds of files that they are on disk, where that takes 10 ms a
    file. `pytest --basetemp FOLDER` keeps those of tests.
    """
    made = os.environ.get(MADE)
    if made is None:
        folder = MEMORY if _has_room(MEMORY) else tempfile.gettempdir()
        for left in Path(folder).glob(f"{PREFIX}*"):
            # Of a session that was killed, as memory has to be given back.
            if not psutil.pid_exists(int(left.name.removeprefix(PREFIX).partition("-")[0])):
                shutil.rmtree(left, ignore_errors=True)
        made = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=folder)
        os.environ["TMPDIR"] = tempfile.tempdir = f"{made}/tmp"
        os.mkdir(tempfile.tempdir)
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


def _has_room(folder: str) -> bool:
    if not os.path.isdir(folder):
        return False
    return min(shutil.disk_usage(folder).free, psutil.virtual_memory().available) > ROOM


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
