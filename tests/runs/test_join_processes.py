"""Processes that wait for the main one wait as long as the recipe says, whoever asks for the group later."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_chain.errors import HfChainError
from hf_chain.runs.environment import check_engine, check_launch
from support.forks import Fork
from support.graft_recipes import tiny_graft_values
from support.recipes import tiny_values, write_recipe

WATCH = """
import os, sys
from torch import distributed

def watched(*args, **options):
    print("found", os.environ["KIND"], os.environ["RANK"], options.get("timeout"), flush=True)
    os._exit(0)

distributed.init_process_group = watched
import hf_chain.methods.chain.runner, hf_chain.methods.graft.runner
from hf_chain.commands.run import RunArguments, launch

group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
for kind in ("chain", "graft"):
    for rank in ("0", "1"):
        if os.fork() == 0:
            os.environ |= group | {"KIND": kind, "RANK": rank, "LOCAL_RANK": rank}
            launch(RunArguments(kind + ".yaml"))
            os._exit(1)
for _ in range(4):
    os.wait()
"""
"""Processes of two launches, as torchrun starts them, but forked from one that has imported everything."""


@pytest.mark.slow
def test_the_first_group_has_the_timeout_of_the_run(tmp_path: Path) -> None:
    """Nobody can change it after that: it is looked at in real processes, before anything is trained."""
    write_recipe(tmp_path / "chain.yaml", tiny_values(tmp_path / "runs"))
    values = tiny_graft_values(tmp_path)
    values["training"]["ddp_timeout"] = 100
    write_recipe(tmp_path / "graft.yaml", values)
    process = Fork("-c", WATCH, folder=tmp_path)
    process.wait()
    found = sorted(line for line in process.out.splitlines() if line.startswith("found"))
    times = {"chain": "3:00:00", "graft": "0:01:40"}
    expected = [f"found {kind} {rank} {times[kind]}" for kind in times for rank in (0, 1)]
    assert found == expected, process.err[-2000:]


def test_several_gpus_need_as_many_processes() -> None:
    with pytest.raises(HfChainError, match="one process was launched on 4 GPUs: use `accelerate launch --multi_gpu"):
        check_engine(1, 4, uses_deepspeed=False)
    check_engine(1, 1, uses_deepspeed=False)


def test_fsdp_is_refused_in_the_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(HfChainError, match="^The launch asked for FSDP, which nothing here trains with: use"):
        check_launch()
