"""The instruments in benchmarks/faults see a fault where there is one."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_chain.runs.ledger import Ledger

INSTRUMENTS = Path(__file__).resolve().parents[1] / "benchmarks" / "faults"
WEIGHTS = "runs/tiny/01-tiny/model.safetensors"


@pytest.fixture
def instrument(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a module of the instruments by its name, and forgets it afterwards."""
    monkeypatch.setattr(sys, "path", [str(INSTRUMENTS), *sys.path])
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(INSTRUMENTS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write_run(folder: Path) -> None:
    """A run of one member, as far as the instruments look at it."""
    (folder / WEIGHTS).parent.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"weights")
    (folder / "runs/tiny/report").mkdir()
    (folder / "runs/tiny/report/index.html").write_text("page")
    Ledger(folder / "runs/tiny").append("saved", "tiny", weights_sha256="w")


@pytest.mark.parametrize(
    ("file", "status", "err", "verdict"),
    [
        (WEIGHTS, 0, "tiny: nothing is left to do", "silent"),
        (WEIGHTS, 1, "hf-chain: runs/tiny/01-tiny is damaged: remove it", "refused"),
        (WEIGHTS, 1, "hf-chain: something is damaged: remove it", "unclear"),
        (WEIGHTS, 1, "Traceback (most recent call last):\n  …\nValueError: x", "raw"),
        (WEIGHTS, 1, "hf-chain: ValueError: x (set HF_CHAIN_DEBUG=1 for the traceback)", "raw"),
        (WEIGHTS, None, "", "stuck"),
        (WEIGHTS, -11, "", "killed"),
        ("runs/tiny/report/index.html", 0, "", "silent"),
        ("runs/tiny/report/index.html", 0, "index.html is written anew", "harmless"),
    ],
)
def test_damage_that_nobody_notices_is_silent(
    file: str, status: int | None, err: str, verdict: str, instrument: Any, tmp_path: Path
) -> None:
    damage, processes = instrument("damage"), instrument("processes")
    write_run(tmp_path)
    state = damage.State("chain, finished", "chain", damage.RUN, damage.CHAIN)
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    expected = {"result": damage.result_of(state, tmp_path), "files": files}
    assert WEIGHTS in expected["result"]
    damaged = damage.DAMAGES["flipped"]((tmp_path / file).read_bytes())
    (tmp_path / file).write_bytes(damaged)
    outcome = processes.Outcome(status, "", err, 1.0)
    found = damage.judge(damage.Case(state, file, "flipped"), outcome, tmp_path, damaged, expected)
    assert found.partition(":")[0] == verdict


@pytest.mark.parametrize(
    ("expects", "status", "err", "verdict"),
    [
        ("refused", 0, "", "silent"),
        ("refused", 1, "hf-chain: seed is -1; use 0", "refused"),
        ("refused", 1, "hf-chain: something is wrong", "unclear"),
        ("right", 1, "hf-chain: seed is -1; use 0", "wrong"),
        ("warned", 0, "seed is odd", "warned"),
        ("warned", 0, "all is well", "silent"),
        ("dropped", 0, "", "silent"),
    ],
)
def test_an_input_that_is_taken_though_wrong_is_silent(
    expects: str, status: int, err: str, verdict: str, instrument: Any, tmp_path: Path
) -> None:
    inputs, processes = instrument("inputs"), instrument("processes")
    case = instrument("cases").Case("recipes", "a seed", expects, "seed")
    found = inputs.judge(case, processes.Outcome(status, "", err, 1.0), tmp_path)
    assert found.partition(":")[0] == verdict


def test_a_refusal_after_a_member_was_trained_is_late(instrument: Any, tmp_path: Path) -> None:
    inputs, processes = instrument("inputs"), instrument("processes")
    (tmp_path / "runs" / "tiny" / "01-tiny").mkdir(parents=True)
    case = instrument("cases").Case("recipes", "a seed", "refused", "seed")
    outcome = processes.Outcome(1, "", "hf-chain: seed is -1; use 0", 1.0)
    assert inputs.judge(case, outcome, tmp_path).startswith("late")


def test_a_run_that_came_to_other_weights_differs(instrument: Any, tmp_path: Path, monkeypatch: Any) -> None:
    kills, processes = instrument("kills"), instrument("processes")
    monkeypatch.setattr(kills, "pushed", lambda folder, endpoint: {})
    verdicts = []
    for content in (b"weights", b"other weights"):
        write_run(tmp_path / "run")
        if not verdicts:
            wanted = kills.finished(tmp_path / "run", "")
            (tmp_path / "chain1.json").write_text(json.dumps({"result": wanted}))
        (tmp_path / "run" / WEIGHTS).write_bytes(content)
        cell = kills.Cell("chain", 1, "training", first=0)
        verdicts.append(cell._compared(tmp_path / "run", "", tmp_path, processes.Outcome(0, "", "", 1.0))["verdict"])
    assert verdicts == ["identical", "differs"]
