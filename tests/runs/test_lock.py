"""One run a folder at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hf_chain.errors import HfChainError
from hf_chain.runs.lock import only_run
from support.recipes import environment

HOLD = """
import sys
from pathlib import Path
from hf_chain.runs.lock import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_run_by_one_process_at_a_time(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        refused = pytest.raises(HfChainError, match="run is being run by another process: wait for it")
        with refused as error, only_run(tmp_path / "run"):
            pytest.fail("both are in it")
        assert "\n" not in str(error.value)
        other.kill()
    with only_run(tmp_path / "run"):
        pass
