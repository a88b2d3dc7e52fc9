"""Kills a run again and again, as a power cut would, and says where each kill hit."""

from __future__ import annotations

import random
import time
from datetime import datetime
from pathlib import Path

from hf_chain.runs.ledger import Ledger, read_family
from support.forks import Fork


def run_to_the_end(recipe: Path) -> None:
    """Runs the recipe, or what is left of it, without interruption."""
    process = _start(recipe)
    assert process.wait() == 0, process.err[-2000:]


def run_killed(recipe: Path, run_dir: Path, kills: int, seed: int, seconds: float) -> list[str]:
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
        process = _start(recipe)
        while process.poll() is None and _attempts(run_dir) == attempts:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 2 * seconds / kills))
        if process.poll() is not None:
            break
        process.kill()
        hits.append(_doing(run_dir))
    run_to_the_end(recipe)
    return hits


def _start(recipe: Path) -> Fork:
    return Fork("-m", "hf_chain", "run", recipe, plots=False)


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
