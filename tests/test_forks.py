"""Programs that tests fork do as those that are started, and fail as they do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.forks import Fork, forked
from support.launches import Launch

WHERE = """
import os, sys
print(os.getcwd(), sys.argv, [name in sys.modules for name in ("torch", "hf_chain")], os.getsid(0) == os.getpid())
"""
ONE_FAILS = """
import os, time
assert os.environ["RANK"] == "0", "the second one fails"
time.sleep(500)
"""


def test_a_program_has_folder_arguments_and_libraries_and_nothing_of_ours(tmp_path: Path) -> None:
    assert forked("-c", WHERE, "a", folder=tmp_path) == f"{tmp_path} ['-c', 'a'] [True, False] True\n"
    (tmp_path / "program.py").write_text("import sys, beside; print(sys.argv[1:], beside.__name__)")
    (tmp_path / "beside.py").touch()
    assert forked(tmp_path / "program.py", "b") == "['b'] beside\n"
    assert "Usage" in forked("-m", "hf_chain", "plan", "--help")


def test_its_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATUS", "3")
    assert Fork("-c", "import os, sys; sys.exit(int(os.environ['STATUS']))").wait() == 3
    failed = Fork("-c", "raise ValueError('so it is')")
    assert failed.wait() == 1 and failed.err.endswith("ValueError: so it is\n")
    sleeping = Fork("-c", "import time; time.sleep(500)")
    assert sleeping.poll() is None
    sleeping.kill()
    assert sleeping.poll() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(sleeping.pid, 0)


def test_a_launch_fails_where_one_of_its_processes_does() -> None:
    launch = Launch("-c", ONE_FAILS)
    with pytest.raises(AssertionError, match="the second one fails"):
        launch.finish()
    assert not launch.runs()
