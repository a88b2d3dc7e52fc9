"""A build of operators that was killed stops no later run, and no wait for one is silent or endless."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.utils.file_baton import FileBaton

from hf_chain.arguments import extension_locks
from hf_chain.arguments.extension_locks import guard_builds, holders, remove_if_left
from hf_chain.errors import HfChainError
from support.launches import needs_deepspeed

BUILD = """
import sys, time
from torch.utils.file_baton import FileBaton
assert FileBaton(sys.argv[1]).try_acquire()
print("building", flush=True)
time.sleep(300)
"""
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch would lock the building of one operator; `FileBaton` is as before afterwards."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(FileBaton, "wait", FileBaton.wait)
    monkeypatch.setattr(extension_locks, "ASKED_EVERY", 0.2)
    (tmp_path / "cpu_adam").mkdir()
    (tmp_path / "cpu_adam" / "built_before.so").touch()
    return tmp_path / "cpu_adam" / "lock"


@pytest.fixture
def build(lock: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a build."""
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "building\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_that_a_killed_build_left_is_named_and_removed(
    lock: Path, build: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    build.kill()
    build.wait()
    assert lock.exists() and holders(lock) == []
    guard_builds(None)
    assert lock.exists(), "nothing is looked at where DeepSpeed is not used"
    guard_builds({"zero_optimization": {"stage": 2}})
    assert not lock.exists() and caplog.messages == [
        f"{lock} was left by a build that was killed, and no process holds it: removed"
    ]


def test_a_lock_that_a_build_holds_is_left_and_waited_for_aloud(
    lock: Path, build: subprocess.Popen[str], caplog: pytest.LogCaptureFixture
) -> None:
    guard_builds({"zero_optimization": {"stage": 2}})
    assert lock.exists() and holders(lock) == [build.pid]
    threading.Timer(1.0, lock.unlink).start()
    FileBaton(str(lock)).wait()
    assert caplog.messages == [f"waiting until process {build.pid} has built the operators in {lock.parent}"]


def test_on_several_machines_a_lock_is_left_or_given_back_at_any_moment(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    lock.touch()
    assert not remove_if_left(lock) and lock.exists(), "who holds it may be on another machine"
    lock.unlink()
    assert not remove_if_left(lock)


def test_a_wait_ends_when_the_build_is_killed(lock: Path, build: subprocess.Popen[str]) -> None:
    guard_builds({"zero_optimization": {"stage": 2}})
    threading.Timer(0.5, build.kill).start()
    start = time.monotonic()
    with pytest.raises(HfChainError, match=f"built the operators in {lock.parent} has ended: start again"):
        FileBaton(str(lock)).wait()
    assert time.monotonic() - start < 30 and not lock.exists()


def test_a_wait_has_an_end(lock: Path, build: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension_locks, "LONGEST_BUILD", 1)
    guard_builds("engine.json")
    with pytest.raises(HfChainError, match=f"{lock} has been held for .* by process {build.pid}: end it"):
        FileBaton(str(lock)).wait()


@needs_deepspeed
def test_what_training_does_not_use_is_not_built_on_a_cpu(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed import ops
    from deepspeed.accelerator import get_accelerator
    from deepspeed.comm.torch import build_shm_op

    monkeypatch.setattr(get_accelerator(), "device_name", lambda *_: "cpu")
    monkeypatch.setitem(ops.__compatible_ops__, extension_locks.SHARED_MEMORY, True)
    guard_builds("engine.json")
    assert build_shm_op() is None


def test_the_first_build_is_announced(lock: Path, caplog: pytest.LogCaptureFixture) -> None:
    (lock.parent / "built_before.so").unlink()
    guard_builds("engine.json")
    assert caplog.messages == [
        f"operators that DeepSpeed needs are built in {lock.parents[1]}: the first time that takes some minutes"
    ]
