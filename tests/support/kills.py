"""Kills a run again and again, as a power cut would, and says where each kill hit."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from hf_chain.runs.ledger import Ledger, read_family
from support.recipes import environment

WARM = """
import os, sys
import matplotlib.figure
import hf_chain.methods.chain.runner, hf_chain.methods.graft.runner, hf_chain.trainer.chain_trainer
from hf_chain.cli import main

for recipe in sys.stdin:
    child = os.fork()
    if not child:
        os.setsid()
        log = os.open(recipe.strip() + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["hf-chain", "run", recipe.strip()]
        sys.exit(main())
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Starts runs, each a process and session of its own, forked from one that has imported what takes longest."""

    def __enter__(self) -> Runs:
        self._warm = subprocess.Popen(
            [sys.executable, "-c", WARM], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._warm.communicate()

    def to_the_end(self, recipe: Path) -> None:
        """Runs the recipe, or what is left of it, without interruption."""
        self._start(recipe)
        assert self._status() == 0, Path(f"{recipe}.log").read_text()[-2000:]

    def killed(self, recipe: Path, run_dir: Path, kills: int, seed: int, seconds: float) -> list[str]:
        """Starts the recipe and kills its whole process group with SIGKILL, `kills` times, then lets it finish.

        Args:
            recipe (`Path`): the recipe.
            run_dir (`Path`): its run folder.
            kills (`int`): how often to kill.
            seed (`int`): seed of the moments.
            seconds (`float`): how long an uninterrupted run works; each attempt gets a random part of its share of it.

        Returns:
            `list[str]`: what the run was doing at each kill; fewer than `kills` when it was faster.
        """
        moments = random.Random(seed)
        hits = []
        for _ in range(kills):
            attempts = _attempts(run_dir)
            process = self._start(recipe)
            try:
                while not self._has_ended() and _attempts(run_dir) == attempts:
                    time.sleep(0.02)
                time.sleep(moments.uniform(0, 2 * seconds / kills))
            finally:
                finished = self._has_ended()
                if not finished:
                    os.killpg(process, signal.SIGKILL)
                self._status()
            if finished:
                break
            hits.append(_doing(run_dir))
        self.to_the_end(recipe)
        return hits

    def _start(self, recipe: Path) -> int:
        assert self._warm.stdin is not None and self._warm.stdout is not None
        self._warm.stdin.write(f"{recipe}\n")
        self._warm.stdin.flush()
        return int(self._warm.stdout.readline())

    def _has_ended(self) -> bool:
        return bool(select.select([self._warm.stdout], [], [], 0)[0])

    def _status(self) -> int:
        """Waits for the end of the run that was started last."""
        assert self._warm.stdout is not None
        return int(self._warm.stdout.readline())


def seconds_of_work(run_dir: Path) -> float:
    """Seconds from the plan to the end of a run that was not interrupted."""
    family = read_family(run_dir)
    return (datetime.fromisoformat(family.finished) - datetime.fromisoformat(family.started)).total_seconds()


def leftovers(run_dir: Path) -> list[Path]:
    """Files and folders that an unfinished step leaves and a later attempt has to remove."""
    return [path for path in run_dir.rglob("*") if path.name.endswith((".partial", ".tmp")) or _is_checkpoint(path)]


def _is_checkpoint(path: Path) -> bool:
    return path.name.startswith("checkpoint-")


def _attempts(run_dir: Path) -> int:
    return sum(entry["event"] == "run_started" for entry in Ledger(run_dir).entries())


def _doing(run_dir: Path) -> str:
    last = list(Ledger(run_dir).entries())[-1]
    place = f"{last.get('member', 'run')}, after `{last['event']}`"
    details = []
    checkpoints = sorted(run_dir.glob("checkpoints/*/checkpoint-*"), key=lambda path: int(path.name[11:]))
    if checkpoints:
        state = "checkpoint" if (checkpoints[-1] / "trainer_state.json").exists() else "writing checkpoint"
        details.append(f"{state} {checkpoints[-1].name[11:]}")
    details += [f"writing {path.name}" for path in leftovers(run_dir) if path.name.endswith(".partial")]
    return ", ".join([place, *details])
