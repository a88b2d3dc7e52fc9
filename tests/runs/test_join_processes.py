"""Processes that wait for the main one wait as long as the recipe says, whoever asks for the group later."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hf_chain.errors import HfChainError
from hf_chain.runs.environment import check_engine, check_launch
from support.graft_recipes import tiny_graft_values
from support.recipes import environment, tiny_values, write_recipe

WATCH = """
import os, sys
from torch import distributed

def watched(*args, **options):
    print("found", os.environ["RANK"], options.get("timeout"), flush=True)
    sys.exit(0)

distributed.init_process_group = watched
from hf_chain.commands.run import RunArguments, launch
launch(RunArguments(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seconds"), [("chain", "3:00:00"), ("graft", "0:01:40")])
def test_the_first_group_has_the_timeout_of_the_run(tmp_path: Path, kind: str, seconds: str) -> None:
    """Nobody can change it after that: it is looked at in real processes, before anything is trained."""
    values = tiny_values(tmp_path / "runs") if kind == "chain" else tiny_graft_values(tmp_path)
    if kind == "graft":
        values["training"]["ddp_timeout"] = 100
    (tmp_path / "watch.py").write_text(WATCH)
    recipe = write_recipe(tmp_path / "recipe.yaml", values)
    done = subprocess.run(
        ["torchrun", "--standalone", "--nproc_per_node", "2", str(tmp_path / "watch.py"), str(recipe)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    found = sorted(line for line in done.stdout.splitlines() if line.startswith("found"))
    assert found == [f"found {rank} {seconds}" for rank in (0, 1)], done.stderr[-2000:]


def test_several_gpus_need_as_many_processes() -> None:
    with pytest.raises(HfChainError, match="one process was launched on 4 GPUs: use `accelerate launch --multi_gpu"):
        check_engine(1, 4, uses_deepspeed=False)
    check_engine(1, 1, uses_deepspeed=False)


def test_fsdp_is_refused_in_the_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(HfChainError, match="^The launch asked for FSDP, which nothing here trains with: use"):
        check_launch()
