"""A stage of a graft in one process, in two, and under DeepSpeed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from support.graft_run import ACCUMULATION, GLOBAL_BATCH, SETTINGS, STEPS, run
from support.launches import Launch, killed_once, needs_deepspeed
from support.recipes import REPOSITORY, environment

pytestmark = pytest.mark.slow

SCRIPT = str(REPOSITORY / "tests" / "support" / "graft_run.py")
HALF = {"per_device_train_batch_size": GLOBAL_BATCH // ACCUMULATION // 2}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the others are compared with."""
    folder = tmp_path_factory.mktemp("one")
    run(folder)
    return folder


def settings(stage: int, **more: Any) -> str:
    return json.dumps(HALF | {"deepspeed": str(REPOSITORY / f"examples/accelerate_configs/zero{stage}.json")} | more)


def assert_same_run(found: Path, expected: Path, tolerance: float) -> None:
    """Same losses, gradient norms and rates in every step, same trained weights, and a stock model."""
    ours, theirs = ([e for e in json.loads((f / "log.json").read_text()) if "loss" in e] for f in (found, expected))
    assert len(ours) == len(theirs) == STEPS
    for name in ("loss", "learning_rate", *(f"learning_rate/{part}" for part in SETTINGS["parts"])):
        assert [entry[name] for entry in ours] == pytest.approx([entry[name] for entry in theirs], rel=tolerance)
    gradients = [[entry["grad_norm"] for entry in log] for log in (ours, theirs)]
    assert gradients[0] == pytest.approx(gradients[1], rel=10 * tolerance)
    for name in ("trainable.safetensors", "lora/adapter_model.safetensors"):
        trained, reference = load_file(found / "final" / name), load_file(expected / "final" / name)
        assert set(trained) == set(reference)
        for key, value in trained.items():
            torch.testing.assert_close(value, reference[key], rtol=tolerance, atol=10 * tolerance)
    _, loading = AutoModelForImageTextToText.from_pretrained(found / "final", output_loading_info=True)
    assert not any(loading.values()), loading


def test_two_processes_train_as_one(tmp_path: Path, one_process: Path) -> None:
    """As torchrun starts them."""
    command = ["torchrun", "--standalone", "--nproc_per_node", "2", SCRIPT, str(tmp_path / "run"), json.dumps(HALF)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=540, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert_same_run(tmp_path / "run", one_process, 1e-5)


@needs_deepspeed
def test_zero_2_on_a_stream_trains_as_one_process(tmp_path: Path, one_process: Path) -> None:
    Launch(SCRIPT, tmp_path / "run", settings(2, stream=True)).finish()
    assert_same_run(tmp_path / "run", one_process, 1e-4)


@needs_deepspeed
def test_zero_3_killed_and_resumed_trains_as_one_process(tmp_path: Path, one_process: Path) -> None:
    arguments = (SCRIPT, tmp_path / "run", settings(3))
    killed_once(tmp_path / "run", "checkpoint-2/trainer_state.json", *arguments)
    assert not (tmp_path / "run" / "log.json").exists()
    Launch(*arguments).finish()
    assert_same_run(tmp_path / "run", one_process, 1e-4)
