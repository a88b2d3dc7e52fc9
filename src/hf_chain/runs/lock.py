"""One run a folder at a time: two would delete each other's unfinished work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from transformers.utils import logging

from hf_chain.errors import HfChainError

LOCK_NAME = ".lock"
LAST_BREATH = 10.0
"""Seconds that data workers of a process that was killed may outlive it, with its lock."""

logger = logging.get_logger(__name__)


@contextmanager
def only_run(run_dir: Path) -> Iterator[None]:
    """Holds a lock on the folder of a run for as long as the process is in it; a kill gives it back.

    Args:
        run_dir (`Path`): the run's folder, made where it is not there, and removed, with the folder of all runs
            if that is new, when nothing is written into it.

    Raises:
        HfChainError: when another process is in it, or it, or something in it, is a link to a place that is gone.
    """
    check_links(run_dir)
    all_runs_are_new = not run_dir.parent.exists()
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run_dir / LOCK_NAME)
    try:
        _acquire(lock, run_dir)
    except Timeout as error:
        raise HfChainError(
            f"{run_dir} is being run by another process: wait for it, or choose another name"
        ) from error
    try:
        yield
    finally:
        lock.release()
        if {path.name for path in run_dir.iterdir()} <= {LOCK_NAME}:
            with suppress(OSError):
                (run_dir / LOCK_NAME).unlink(missing_ok=True)
                run_dir.rmdir()
                if all_runs_are_new:
                    run_dir.parent.rmdir()


def check_links(run_dir: Path) -> None:
    """Refuses links to a disk that is not there: what lies on it would be made again, and could not take its name.

    Args:
        run_dir (`Path`): the run's folder.

    Raises:
        HfChainError: naming the link.
    """
    for path in (run_dir, *run_dir.glob("*"), *run_dir.glob("*/*")):
        if path.is_symlink() and not path.exists():
            raise HfChainError(f"{path} links to {path.readlink()}, which is gone: bring it back, or remove the link")


def _acquire(lock: FileLock, run_dir: Path) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        logger.warning(f"{run_dir} is locked; waiting up to {LAST_BREATH:.0f} s for the process that holds it to end")
        lock.acquire(timeout=LAST_BREATH)
