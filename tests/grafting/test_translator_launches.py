"""Translators trained by two processes are those of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.launches import Launch
from support.recipes import REPOSITORY
from support.translator_run import run


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """The hidden objective leaves the model's forward half-way, inside of what the engine wraps."""
    one, two = tmp_path / "one", tmp_path / "two"
    training = run(one, 1)
    assert training.tokens == 4 * 2 * 4 * 16
    Launch(REPOSITORY / "tests/support/translator_run.py", two, "2").finish()
    weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-5, atol=1e-6)
