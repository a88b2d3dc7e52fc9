"""Programs in processes of their own that begin with the libraries imported, which is most of what a start takes.

A server is started once a worker and forks for every program. Two things are not as in a process that is started: all
have the same hash seed, and variables that libraries read when they are imported are those of `environment()`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from support import fork_server
from support.recipes import environment


class Fork:
    """A program in a process and session of its own.

    Args:
        arguments (`str`): what would follow `python`: `-m MODULE …`, `-c CODE …` or `SCRIPT …`.
        folder (`Path`, *optional*): its working directory; this process's without it.
        variables (`dict[str, str]`, *optional*): variables beside those of every launched process.
        plots (`bool`): `False` for a run of hf_chain whose reports are to have no plots, see `support.plots`.
    """

    def __init__(
        self,
        *arguments: object,
        folder: Path | None = None,
        variables: Mapping[str, str] | None = None,
        plots: bool = True,
    ) -> None:
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self._told, telling = os.pipe()
        request = {
            "arguments": [*map(str, arguments)],
            "environment": environment() | dict(variables or {}),
            "folder": str(folder or Path.cwd()),
            "plots": plots,
        }
        message = f"{json.dumps(request)}\n".encode()
        socket.send_fds(_server(), [message], [self._out.fileno(), self._err.fileno(), telling])
        os.close(telling)
        self.pid = int(os.read(self._told, fork_server.SIZE))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or nothing while it runs."""
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.returncode = int(os.read(self._told, fork_server.SIZE))
            os.close(self._told)
        return self.returncode

    def wait(self, timeout: float = 540) -> int:
        """Waits for its end and returns the exit status; kills it where it takes too long."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"it did not end within {timeout} seconds\n{self.err[-3000:]}")
            time.sleep(0.02)
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process alone."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills it and what it has started, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    @property
    def out(self) -> str:
        """What it wrote on its standard output."""
        return _content(self._out)

    @property
    def err(self) -> str:
        """What it wrote on its standard error."""
        return _content(self._err)


def forked(*arguments: object, folder: Path | None = None) -> str:
    """What a program prints that ends well."""
    process = Fork(*arguments, folder=folder)
    assert process.wait() == 0, process.err[-3000:]
    return process.out


def _content(stream: IO[bytes]) -> str:
    # Not by seeking: the place in the file is the program's too.
    return os.pread(stream.fileno(), os.fstat(stream.fileno()).st_size, 0).decode()


@functools.cache
def _server() -> socket.socket:
    """Starts the server of this process, which ends with it."""
    ours, theirs = socket.socketpair()
    subprocess.Popen(
        [sys.executable, fork_server.__file__, str(theirs.fileno())],
        env=environment() | {"HF_ENDPOINT": "http://127.0.0.1:9", "DS_ACCELERATOR": "cpu"},
        cwd=tempfile.gettempdir(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()
    return ours
