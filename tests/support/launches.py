"""Two processes as a launcher starts them, forked from one that has imported the libraries.

The launchers themselves, `accelerate launch` for every engine and `torchrun`, are started by a test of each method.
"""

from __future__ import annotations

import importlib.util
import socket
import time
from pathlib import Path

import pytest

from support.forks import Fork
from support.recipes import REPOSITORY

PROCESSES = 2
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")


def zero(stage: int) -> dict[str, str]:
    """What `accelerate launch` tells its processes of the example configuration for a stage of ZeRO."""
    return {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(REPOSITORY / f"examples/accelerate_configs/zero{stage}.json"),
        "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
        "ACCELERATE_CONFIG_DS_FIELDS": "deepspeed_config_file,zero3_init_flag",
        "ACCELERATE_MIXED_PRECISION": "no",
    }


class Launch:
    """Two processes of a program.

    Args:
        arguments (`str`): what would follow `torchrun --standalone --nproc_per_node 2`.
        variables (`str`): more variables than those of every launched process, such as those of `zero`.
    """

    def __init__(self, *arguments: object, **variables: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        world = {"WORLD_SIZE": str(PROCESSES), "LOCAL_WORLD_SIZE": str(PROCESSES)}
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        world |= variables
        self.processes = [
            Fork(*arguments, variables=world | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, plots=False)
            for rank in range(PROCESSES)
        ]

    def runs(self) -> bool:
        """Whether both processes run."""
        return all(process.poll() is None for process in self.processes)

    def kill(self) -> None:
        """Kills both, as a power cut would."""
        for process in self.processes:
            process.kill()

    @property
    def err(self) -> str:
        """What they wrote on their standard errors."""
        return "\n".join(process.err[-3000:] for process in self.processes)

    def finish(self, timeout: float = 540) -> None:
        """Waits for both to end well.

        Raises:
            AssertionError: with what they wrote, where one fails or takes too long; the other one is killed then.
        """
        deadline = time.monotonic() + timeout
        while any(process.poll() is None for process in self.processes):
            if any(process.poll() for process in self.processes) or time.monotonic() > deadline:
                self.kill()
            time.sleep(0.02)
        assert not any(process.returncode for process in self.processes), self.err


def killed_once(path: Path, pattern: str, *arguments: object, **variables: str) -> None:
    """Launches, and kills both processes once a file is there that matches the pattern in the folder."""
    launch = Launch(*arguments, **variables)
    deadline = time.monotonic() + 400
    while launch.runs() and time.monotonic() < deadline and not list(path.glob(pattern)):
        time.sleep(0.02)
    alive = launch.runs()
    launch.kill()
    assert alive and time.monotonic() < deadline, launch.err
