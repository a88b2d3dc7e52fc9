"""Commands in forked processes: torch is imported once, and yet each command ends as a process of its own does."""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
"""Of every command: one thread, and waiting without spinning."""
RAW = re.compile(r"^Traceback \(most recent call last\)|\(set HF_CHAIN_DEBUG=1", re.MULTILINE)
"""What a user is not meant to see."""
_NOISE = re.compile(r"^\s*$|it/s\]|\d+%\|| warning|Warning|^\{'|^\[(W|E)\d+")

Case = TypeVar("Case")


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit status (`None` where it had to be stopped), both streams, and seconds it took."""

    status: int | None
    out: str
    err: str
    seconds: float
    value: dict[str, Any] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The line that says what is wrong; empty where there is none, or more than one."""
        said = [line for line in self.err.splitlines() if line.startswith("hf-chain: ")]
        return said[0].removeprefix("hf-chain: ") if len(said) == 1 else ""

    @property
    def last_words(self) -> str:
        """What was said last, for a report."""
        lines = [line for line in f"{self.out}\n{self.err}".splitlines() if not _NOISE.search(line)]
        return " ".join((self.line or " ".join(lines[-1:])).split())[:400]

    @property
    def ending(self) -> str:
        """`accepted`, `refused` (one line, no traceback), `raw`, `stuck` or `killed`."""
        if self.status is None:
            return "stuck"
        if RAW.search(self.err):
            return "raw"
        if self.status == 0:
            return "accepted"
        return "killed" if self.status < 0 else "refused" if self.line else "raw"


def prepare(hub: str = "http://127.0.0.1:9") -> None:
    """Imports what commands need, with the Hub at `hub`; nothing is computed here, so that forks start clean."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    own = {"HF_ENDPOINT": hub, "HF_HOME": str(folder), "HF_TOKEN": "hf_test"}
    os.environ.update(VARIABLES | own)
    import datasets  # noqa: F401
    import matplotlib.pyplot
    import peft  # noqa: F401
    import torch
    from transformers import AutoProcessor, CLIPModel, LlamaForCausalLM, LlavaForConditionalGeneration, Trainer

    import hf_chain.methods.chain.runner
    import hf_chain.methods.graft.runner
    import hf_chain.report
    import hf_chain.trainer  # noqa: F401

    assert AutoProcessor and CLIPModel and LlamaForCausalLM and LlavaForConditionalGeneration and Trainer
    assert matplotlib.pyplot
    torch.set_num_threads(1)


def hf_chain(*arguments: object, before: Callable[[], None] | None = None, **options: Any) -> Outcome:
    """Runs `hf-chain` with these arguments, in its process first `before`; see `call` for the other options."""

    def command() -> None:
        from hf_chain.cli import main

        if before is not None:
            before()
        sys.argv = ["hf-chain", *map(str, arguments)]
        main()

    return call(command, **options)


def call(
    work: Callable[[], Any],
    folder: Path | None = None,
    timeout: float = 120,
    typed: bytes = b"",
    variables: dict[str, str] | None = None,
    meanwhile: Callable[[int], None] | None = None,
) -> Outcome:
    """Runs `work` in a process group of its own.

    Args:
        work (`Callable`): what is run; ends as a command does, by returning, by `SystemExit` or by an error.
        folder (`Path`, *optional*): working directory.
        timeout (`float`): seconds after which the whole group is killed.
        typed (`bytes`): what is read from the keyboard.
        variables (`dict`, *optional*): of the environment.
        meanwhile (`Callable`, *optional*): is handed the number of the process, while that runs.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as keys:
        keys.write(typed)
        keys.seek(0)
        pid = os.fork()
        if pid == 0:
            _be_a_command(work, folder, (keys.fileno(), out.fileno(), err.fileno()), variables or {})
        if meanwhile is not None:
            meanwhile(pid)
        status = _wait(pid, timeout)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            # A progress bar returns to the start of its line; what stands after that is what a terminal shows.
            texts.append(re.sub(r"[^\n]*\r(?!\n)", "", stream.read().decode(errors="replace")))
    return Outcome(status, *texts, time.monotonic() - started)


def _be_a_command(
    work: Callable[[], Any], folder: Path | None, streams: tuple[int, int, int], variables: dict[str, str]
) -> None:
    status = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        os.environ.update(variables)
        os.chdir(folder or os.getcwd())
        work()
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(pid: int, timeout: float) -> int | None:
    deadline, pause = time.monotonic() + timeout, 0.005
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(pause)
        pause = min(0.05, pause * 1.3)
    import psutil

    # A launcher's workers are in groups of their own.
    for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
        process.kill()
    os.waitpid(pid, 0)
    return None


def side_by_side(
    cases: Iterable[Case], work: Callable[[Case], dict[str, Any]], jobs: int
) -> Iterable[tuple[Case, dict[str, Any]]]:
    """Yields every case with what `work` found, in the order in which they end.

    Args:
        cases (`Iterable`): what is worked on, each in a forked process.
        work (`Callable`): gives what JSON holds.
        jobs (`int`): most processes at a time.
    """
    import json

    running: dict[int, tuple[Case, Any]] = {}
    waiting = list(reversed(list(cases)))
    while waiting or running:
        while waiting and len(running) < jobs:
            case, answer = waiting.pop(), tempfile.TemporaryFile("w+")  # noqa: SIM115
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    json.dump(work(case), answer)
                    answer.flush()
                    status = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(status)
            running[pid] = case, answer
        pid, status = os.wait()
        case, answer = running.pop(pid)
        if status:
            for other in running:
                os.kill(other, signal.SIGTERM)
            raise SystemExit(f"{case}: the instrument itself failed, see above")
        answer.seek(0)
        yield case, json.load(answer)
        answer.close()
