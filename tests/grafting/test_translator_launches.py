"""Translators trained by two processes are those of one: a real launch."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.recipes import REPOSITORY, environment
from support.translator_run import run

SCRIPT = str(REPOSITORY / "tests" / "support" / "translator_run.py")


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """The hidden objective leaves the model's forward half-way, inside of what the engine wraps."""
    one, two = tmp_path / "one", tmp_path / "two"
    training = run(one, 1)
    assert training.tokens == 4 * 2 * 4 * 16
    launch = ["torchrun", "--standalone", "--nproc_per_node", "2", SCRIPT, str(two), "2"]
    result = subprocess.run(launch, env=environment(), capture_output=True, text=True, timeout=540)
    assert result.returncode == 0, result.stderr[-3000:]
    weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-5, atol=1e-6)
