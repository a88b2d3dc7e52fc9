"""One run a folder at a time: two would delete each other's unfinished work."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_chain.errors import HfChainError

LOCK_NAME = ".lock"


@contextmanager
def only_run(run_dir: Path) -> Iterator[None]:
    """Holds a lock on the folder of a run for as long as the process is in it; a kill gives it back.

    Args:
        run_dir (`Path`): the run's folder, made where it is not there.

    Raises:
        HfChainError: when another process is in it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            # A lock of this process alone: data workers that outlive it for a moment do not hold it.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise HfChainError(
                f"{run_dir} is being run by another process: wait for it, or choose another name"
            ) from error
        yield
    finally:
        os.close(descriptor)
