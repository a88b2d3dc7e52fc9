"""Kills runs of a chain and of a graft, in one process and in two, in the middle of everything they do.

    python benchmarks/faults/kills.py

Kills with SIGKILL, SIGTERM, SIGINT and SIGSTOP before SIGKILL are spread evenly over building, training, saving,
evaluating and pushing. After every five the run is finished, and its weights and what it pushed are compared with
those of a run that nothing has disturbed. Goes on where it was stopped; results go to docs/benchmarks/reliability.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import moments
from moments import PHASES, Moment
from processes import ROOT, Outcome, call, prepare
from results import Results, write_page
from tiny_runs import METHODS, RECIPE, weights, write_run

KILLS = 5
"""After which a run is finished and compared."""
SIGNALS = ("KILL", "TERM", "INT", "STOP")
STATUS = {"KILL": -signal.SIGKILL, "STOP": -signal.SIGKILL, "TERM": 128 + signal.SIGTERM, "INT": 128 + signal.SIGINT}
"""What one process ends with. A launcher of several has numbers of its own, which are not 0."""
SECONDS = 180
"""After which a step is said to wait for ever."""


def command(processes: int) -> Callable[[], None]:
    """What runs the recipe in the working directory: in this process, or in several of torchrun's, which it forks."""

    def run() -> None:
        sys.argv = ["hf-chain", "run", RECIPE]
        if processes == 1:
            moments.main()
            return
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        # As `torchrun --standalone` does, but that torch is imported already.
        place = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": str(os.getpid())}
        config = LaunchConfig(1, 1, processes, max_restarts=0, start_method="fork", monitor_interval=0.1, **place)
        elastic_launch(config, moments.main)()

    return run


def launch(folder: Path, processes: int, moment: Moment | None = None, disturb: Any = None) -> Outcome:
    """Runs the recipe in `folder`, or what is left of it."""
    variables = moment.variables() if moment is not None else {}
    return call(command(processes), folder=folder, timeout=SECONDS, variables=variables, meanwhile=disturb)


class Killer:
    """Sends a signal to a run at a moment.

    Args:
        name (`str`): one of `SIGNALS`.
        mark (`Path`): file that the run makes at the moment.
        one (`bool`): kill one worker alone, of several.
    """

    def __init__(self, name: str, mark: Path, one: bool) -> None:
        self.name, self.mark, self.one, self.where = name, mark, one, ""

    def __call__(self, pid: int) -> None:
        """Waits for the moment, or for the end of the run."""
        deadline = time.monotonic() + SECONDS
        while not self.mark.exists() and time.monotonic() < deadline:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.003)
        self.where = self.mark.read_text(encoding="utf-8") or "?"
        everyone = [pid, *_descendants(pid)]
        if self.name in ("TERM", "INT"):
            os.kill(pid, getattr(signal, f"SIG{self.name}"))
            return
        if self.name == "STOP":
            _send(everyone, signal.SIGSTOP)
            time.sleep(0.3)
        _send([_worker(everyone)] if self.one else everyone, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _worker(everyone: list[int]) -> int:
    """The first worker of a launcher, which stands behind it in the list."""
    return everyone[1] if len(everyone) > 1 else everyone[0]


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def finished(folder: Path, endpoint: str) -> dict[str, str]:
    """What a run came to: hashes of all weights, of those that the Hub has, and what lies about."""
    left = [path for path in folder.rglob("*") if path.name.endswith((".partial", ".tmp"))]
    left += [path for path in folder.rglob("checkpoint-*")]
    return weights(folder) | pushed(folder, endpoint) | {f"left over: {path.name}": "" for path in left}


def pushed(folder: Path, endpoint: str) -> dict[str, str]:
    """SHA-256 of the weights that the Hub has of a run."""
    from huggingface_hub import HfApi

    found, api = {}, HfApi(endpoint)
    for model in api.list_models(author="tester", search=f"{folder.name}-"):
        for file in api.list_repo_tree(model.id, recursive=True):
            if file.lfs is not None:
                found[f"Hub {model.id.rpartition('-')[2]}/{file.path}"] = file.lfs.sha256
    return found


class Cell:
    """Five kills in one phase of runs of one method.

    Args:
        method (`str`): chain or graft.
        processes (`int`): one or two.
        phase (`str`): where the kills hit.
        first (`int`): number of the first signal, so that all come equally often.
    """

    def __init__(self, method: str, processes: int, phase: str, first: int) -> None:
        self.method, self.processes, self.phase, self.first = method, processes, phase, first

    def __str__(self) -> str:
        return f"{self.method}, {self.processes} process{'es' if self.processes > 1 else ''}, {self.phase}"

    @property
    def folder_name(self) -> str:
        """Folder of its runs, and part of the names of their repositories."""
        return f"{self.method}{self.processes}-{self.phase}"

    def kill(self, place: Path, calls: int, endpoint: str) -> Iterator[dict[str, Any]]:
        """Kills a run five times and finishes it; more than one run where one was faster."""
        moment, kills, runs = random.Random(str(self)), 0, 0
        folder = place / f"{self.folder_name}-{runs}"
        fresh(folder, self.method, self.processes)
        while kills < KILLS and runs < KILLS:
            name = SIGNALS[(self.first + kills) % len(SIGNALS)]
            mark = folder / "mark"
            mark.unlink(missing_ok=True)
            # In a part of what is left, so that a run is killed several times, sometimes at a stand and sometimes not.
            at, pause = moment.randint(1, max(1, calls // 3)), moment.choice((0.0, 0.3))
            rank = 1 if self.processes > 1 and self.phase == "training" and kills % 2 else 0
            killer = Killer(name, mark, one=self.processes > 1 and name == "KILL" and kills % 2 == 0)
            outcome = launch(folder, self.processes, Moment(self.phase, at, str(mark), pause, rank), killer)
            if killer.where:
                kills += 1
                yield self._row(kills, name, killer, outcome)
            else:
                yield self._compared(folder, endpoint, place, outcome)
                runs += 1
                folder = place / f"{self.folder_name}-{runs}"
                fresh(folder, self.method, self.processes)
        yield self._compared(folder, endpoint, place, launch(folder, self.processes)) | {"last": True}

    def _row(self, number: int, name: str, killer: Killer, outcome: Outcome) -> dict[str, Any]:
        wanted = STATUS[name] if self.processes == 1 else None
        right = outcome.status not in (None, 0) and wanted in (None, outcome.status)
        quiet = not (name in ("TERM", "INT") and self.processes == 1 and outcome.ending == "raw")
        said = "saved a checkpoint" in outcome.err
        asked = name == "TERM" and self.phase == "training"
        verdict = "stuck" if outcome.status is None else "raw" if not quiet else "ended" if right else "status"
        return {
            "case": f"{self}: kill {number}",
            "verdict": "unsaved" if verdict == "ended" and asked and not said else verdict,
            "signal": f"{name}{' of one worker' if killer.one else ''}",
            "where": killer.where,
            "status": outcome.status,
            "said": outcome.line or outcome.last_words[-200:],
            "seconds": round(outcome.seconds, 1),
        }

    def _compared(self, folder: Path, endpoint: str, place: Path, last: Outcome) -> dict[str, Any]:
        wanted = json.loads((place / f"{self.method}{self.processes}.json").read_text(encoding="utf-8"))["result"]
        found = finished(folder, endpoint)
        differs = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        verdict = (
            "stuck" if last.status is None else "failed" if last.status else "differs" if differs else "identical"
        )
        said = last.line or last.last_words if last.status else ", ".join(differs[:5])
        shutil.rmtree(folder)
        return {"case": f"{self}: {folder.name} compared", "verdict": verdict, "said": said, "hashes": len(wanted)}


def fresh(folder: Path, method: str, processes: int) -> None:
    """An empty folder with the recipe of a run that is pushed."""
    shutil.rmtree(folder, ignore_errors=True)
    write_run(folder, method, processes, hub={"push": True, "prefix": f"tester/{folder.name}"})


def undisturbed(method: str, processes: int, place: Path, endpoint: str) -> dict[str, int]:
    """Calls of every phase of a run that nothing disturbs; its result is kept beside its folder."""
    known = place / f"{method}{processes}.json"
    if not known.exists():
        folder = place / f"{method}{processes}-whole"
        fresh(folder, method, processes)
        mark = folder / "counts.json"
        outcome = launch(folder, processes, Moment("", 0, str(mark)))
        if outcome.status != 0:
            raise SystemExit(f"{folder} failed undisturbed: {outcome.err[-2000:]}")
        calls = json.loads(mark.read_text(encoding="utf-8"))
        known.write_text(json.dumps({"calls": calls, "result": finished(folder, endpoint)}), encoding="utf-8")
        shutil.rmtree(folder)
    return json.loads(known.read_text(encoding="utf-8"))["calls"]


def main() -> None:
    """Kills what has not been killed yet and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "faults", help="where runs and results are kept"
    )
    parser.add_argument("--only", default="", help="regular expression that the cells have to match")
    arguments = parser.parse_args()
    from support.hub_server import HubServer

    with HubServer() as hub:
        # A client that was killed has not said all that it was about to.
        hub._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        prepare(hub.endpoint)
        results, place = Results(arguments.folder / "kills.jsonl"), (arguments.folder / "kills").absolute()
        place.mkdir(parents=True, exist_ok=True)
        known = {row["cell"] for row in results.rows() if row.get("last")}
        for cell in cells():
            if str(cell) in known or not re.search(arguments.only, str(cell)):
                continue
            calls = undisturbed(cell.method, cell.processes, place, hub.endpoint)[cell.phase]
            for row in cell.kill(place, calls, hub.endpoint):
                told = " ".join([row.get("signal", ""), row.get("where", ""), row["said"]])
                print(f"{row['verdict']:>9} {row['case']}: {told[:200]}", flush=True)
                results.add(row.pop("case"), cell=str(cell), **vars(cell), **row)
        write_page(arguments.folder)


def cells() -> list[Cell]:
    """Every method, number of processes and phase."""
    places = [(method, count, phase) for count in (1, 2) for method in METHODS for phase in PHASES]
    return [Cell(*place, first=number) for number, place in enumerate(places)]


if __name__ == "__main__":
    from hf_chain.cli import exit_cleanly

    exit_cleanly(main)
