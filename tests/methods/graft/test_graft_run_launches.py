"""A whole graft in one process, in two, and under DeepSpeed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from hf_chain.methods.graft.recipe import load_graft_recipe
from hf_chain.methods.graft.runner import run_graft
from hf_chain.runs.ledger import read_family
from support.graft_recipes import CHAIN, tiny_graft_values
from support.launches import PROCESSES, Launch, needs_deepspeed
from support.recipes import REPOSITORY, accelerate_config, environment, write_recipe

pytestmark = pytest.mark.slow

GLOBAL_BATCH = 8
# Steps of Adam are not to be made of the rounding of gradients near zero.
EVEN = {"adam_epsilon": 1e-4, "bf16": False, "disable_tqdm": True, "logging_steps": 1}
STAGES = ["target", "surrogate", "adapter", "translator", "encoder", "graft", "decoder"]
TRAINED = ["target", "adapter", "encoder", "decoder"]


def recipe_in(folder: Path, processes: int = 1) -> Path:
    """A new target, the encoder of a chain, a translator fitted again and LoRA, with whole batches of one size."""
    folder.mkdir(exist_ok=True)
    training = EVEN | {"per_device_train_batch_size": GLOBAL_BATCH // processes}
    on_surrogate: dict[str, Any] = {"decoder": "surrogate"}
    decoder = {"adapter": 1e-3, "decoder.last:2": 1e-3}
    values = tiny_graft_values(
        folder,
        surrogate__replaced="1-3",
        target__new__training=training | {"learning_rate": 1e-3},
        stages=[
            on_surrogate | {"name": "adapter", "parts": {"adapter": 1e-3, "image_tokens": 1e-3}},
            on_surrogate | {"name": "translator", "refit": 20},
            on_surrogate | {"name": "encoder", "parts": {"adapter": 1e-3, "encoder.last:1": 1e-3, "lora": 1e-3}},
            {"name": "graft", "decoder": "target"},
            {"name": "decoder", "decoder": "target", "parts": decoder, "share": 0.5},
        ],
        baseline=[],
        training=training,
    )
    chain = CHAIN | {"training": training | {"learning_rate": 1e-3}}
    (folder / "chain.yaml").write_text(yaml.safe_dump(chain), encoding="utf-8")
    return write_recipe(folder / "recipe.yaml", values)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the others are compared with."""
    folder = tmp_path_factory.mktemp("one")
    return run_graft(load_graft_recipe(recipe_in(folder)))


def log_of(folder: Path) -> list[dict[str, Any]]:
    """What was logged at every step of a stage."""
    return [entry for entry in json.loads((folder / "training_log.json").read_text()) if "loss" in entry]


def assert_same_run(found: Path, expected: Path, tolerance: float) -> None:
    """Finished in two processes, with the steps, the weights and the answers of one."""
    ours, theirs = read_family(found), read_family(expected)
    assert ours.finished and ours.environment["processes"] == 2
    assert [record.name for record in ours.members] == STAGES
    for record, reference in zip(ours.members, theirs.members, strict=True):
        assert (record.status, record.folder, record.samples) == ("saved", reference.folder, reference.samples)
        assert record.metrics_after == reference.metrics_after
        weights, wanted = (load_file(run / record.folder / "model.safetensors") for run in (found, expected))
        assert weights.keys() == wanted.keys()
        for name, weight in weights.items():
            torch.testing.assert_close(
                weight, wanted[name], rtol=tolerance, atol=tolerance, msg=f"{record.name} {name}"
            )
        assert sorted(path.name for path in (found / record.folder).iterdir()) == sorted(
            path.name for path in (expected / record.folder).iterdir()
        )
    for name in TRAINED:
        logs = [log_of(run / ours.member(name).folder) for run in (found, expected)]
        losses, gradients = ([[entry[key] for entry in log] for log in logs] for key in ("loss", "grad_norm"))
        assert losses[0] == pytest.approx(losses[1], rel=tolerance)
        assert gradients[0] == pytest.approx(gradients[1], rel=10 * tolerance)


def test_two_processes_graft_as_one(tmp_path: Path, one_process: Path) -> None:
    Launch(REPOSITORY / "examples/graft_vlm.py", "--config", recipe_in(tmp_path / "ddp", PROCESSES)).finish()
    assert_same_run(tmp_path / "ddp" / "runs" / "tiny", one_process, 1e-5)


@needs_deepspeed
def test_zero_3_grafts_as_one_process(tmp_path: Path, one_process: Path) -> None:
    """As it is launched by users, on a port of its own."""
    command = ["accelerate", "launch", "--config_file", accelerate_config("zero3"), "--main_process_port", "0"]
    command += ["examples/graft_vlm.py", "--config", str(recipe_in(tmp_path / "zero3", PROCESSES))]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=540, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert_same_run(tmp_path / "zero3" / "runs" / "tiny", one_process, 1e-4)
