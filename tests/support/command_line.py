"""`hf-chain` as a user meets it: arguments in, an exit status and two streams out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

import pytest

from hf_chain.cli import main
from support.forks import Fork


@dataclass(frozen=True)
class Outcome:
    """What a command left on the screen."""

    status: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one line that says what is wrong, without what was logged before it.

        Raises:
            AssertionError: when the command succeeded, showed a traceback, or said less or more than one line.
        """
        assert self.status not in (0, None), f"the command succeeded: {self.out[-500:]}"
        assert "Traceback" not in self.err, self.err
        lines = self.err.strip().splitlines()
        assert lines and lines[-1].startswith("hf-chain: "), self.err
        assert sum(line.startswith("hf-chain: ") for line in lines) == 1, self.err
        return lines[-1].removeprefix("hf-chain: ")


Command = Callable[..., Outcome]


@pytest.fixture
def hf_chain(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line inside this process: `hf_chain("plan", recipe)`."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = 0
        with patch.object(sys, "argv", ["hf-chain", *map(str, arguments)]):
            try:
                main()
            except SystemExit as leaving:
                status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        return Outcome(status, *capsys.readouterr())

    return run


def start_hf_chain(*arguments: object) -> Fork:
    """Starts the command line in a process of its own, without network."""
    return Fork("-m", "hf_chain", *arguments)


def finished(process: Fork, timeout: float = 540) -> Outcome:
    """Waits for a process that `start_hf_chain` has started."""
    return Outcome(process.wait(timeout), process.out, process.err)
