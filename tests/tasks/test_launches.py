"""Every task with a teacher in one process, in two, and under ZeRO-3, each launch of all tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from support.launches import Launch, needs_deepspeed
from support.recipes import REPOSITORY
from support.tasks_run import BATCH, TASKS, run

pytestmark = pytest.mark.slow

HALF: dict[str, Any] = {"per_device_train_batch_size": BATCH // 2, "micro_batch_size": 2}
ZERO_3 = HALF | {"deepspeed": str(REPOSITORY / "examples/accelerate_configs/zero3.json")}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    run(folder)
    return folder


@pytest.fixture(scope="module", params=[HALF, pytest.param(ZERO_3, marks=needs_deepspeed)], ids=["ddp", "zero3"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    Launch(REPOSITORY / "tests/support/tasks_run.py", folder, json.dumps(request.param)).finish()
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_two_processes_train_as_one(task: str, one: Path, two: Path) -> None:
    logs = [json.loads((folder / task / "log.json").read_text()) for folder in (one, two)]
    for name in ("loss", f"{task}_loss", "feature_loss", "grad_norm", "macs"):
        expected, found = ([entry[name] for entry in log if "loss" in entry] for log in logs)
        assert len(expected) == 4 and found == pytest.approx(expected, rel=2e-4), name
    expected, found = (load_file(folder / task / "end" / "model.safetensors") for folder in (one, two))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 2e-4, name


def test_tied_embeddings_stay_tied(two: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(two / "causal_lm" / "end")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
