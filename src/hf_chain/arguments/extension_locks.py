"""Operators that DeepSpeed builds: which are not needed, and locks, which torch waits for in silence, and for ever."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from torch.utils.file_baton import FileBaton
from transformers.integrations import is_deepspeed_available
from transformers.utils import logging

from hf_chain.errors import HfChainError

logger = logging.get_logger(__name__)

LONGEST_BUILD = 30 * 60
"""Seconds; operators take one minute, on a slow disk a few."""
ASKED_EVERY = 5.0
"""Seconds between two looks at who holds a lock that is waited for."""
SHARED_MEMORY = "deepspeed_shm_comm"
"""An operator that DeepSpeed builds on every CPU, for minutes, and that sums over processes in inference alone."""
PROCESSES = Path("/proc")


def guard_builds(deepspeed: Any) -> None:
    """Removes locks that a killed build has left, and lets no wait for one be silent or endless.

    On CPUs the operator is not built that training does not use. To be called before DeepSpeed starts; does nothing
    where it is not used.

    Args:
        deepspeed (`dict` or `str`, *optional*): field of the arguments.
    """
    if not deepspeed and os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() not in ("true", "1"):
        return
    setattr(FileBaton, "wait", _wait)  # noqa: B010
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in sorted([*root.glob("*/lock"), *root.glob("*/*/lock")]):
        remove_if_left(lock)
    if is_deepspeed_available():
        _leave_out_shared_memory()
    if not any(root.rglob("*.so")) and os.environ.get("RANK", "0") == "0":
        logger.warning(f"operators that DeepSpeed needs are built in {root}: the first time that takes some minutes")


def remove_if_left(lock: Path) -> bool:
    """Removes a lock that no process holds, with a warning that names it.

    Args:
        lock (`Path`): the file.

    Returns:
        `bool`: whether it was left behind.
    """
    if not PROCESSES.is_dir() or holders(lock):
        return False
    # Another machine may share the folder, whose processes are not seen here.
    if _several_machines() and _age(lock) < LONGEST_BUILD:
        return False
    # Whoever gives it back closes the file a moment before removing it.
    time.sleep(0.2)
    if not lock.exists() or holders(lock):
        return False
    lock.unlink(missing_ok=True)
    logger.warning(f"{lock} was left by a build that was killed, and no process holds it: removed")
    return True


def holders(lock: Path) -> list[int]:
    """Ids of the processes that have a file open, of those that this one may look at."""
    found = []
    try:
        wanted = lock.stat()
    except OSError:
        return []
    for process in PROCESSES.glob("[0-9]*"):
        try:
            held = any(os.path.samestat(descriptor.stat(), wanted) for descriptor in (process / "fd").iterdir())
        except OSError:
            # It has ended, closed the file meanwhile, or is another user's.
            continue
        if held:
            found.append(int(process.name))
    return found


def _leave_out_shared_memory() -> None:
    from deepspeed import ops
    from deepspeed.accelerator import get_accelerator

    if get_accelerator().device_name() == "cpu":
        ops.__compatible_ops__[SHARED_MEMORY] = False


def _wait(baton: Any) -> None:
    """In place of torch's: says what it waits for, and ends when nobody will give the lock back."""
    lock, start, asked = Path(baton.lock_file_path), time.monotonic(), 0
    while lock.exists():
        time.sleep(baton.wait_seconds)
        waited = time.monotonic() - start
        if waited < asked * ASKED_EVERY:
            continue
        asked += 1
        if remove_if_left(lock):
            raise HfChainError(f"the process that built the operators in {lock.parent} has ended: start again")
        who = ", ".join(map(str, holders(lock))) or "(on another machine)"
        if waited > LONGEST_BUILD:
            raise HfChainError(
                f"{lock} has been held for {LONGEST_BUILD // 60} minutes by process {who}: end it, or remove the file"
            )
        if asked == 2:
            logger.warning(f"waiting until process {who} has built the operators in {lock.parent}")


def _age(lock: Path) -> float:
    """Seconds since a lock was taken; 0 where it has been given back meanwhile."""
    try:
        return time.time() - lock.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _several_machines() -> bool:
    processes = os.environ.get("WORLD_SIZE", "1")
    return os.environ.get("LOCAL_WORLD_SIZE", processes) != processes
