"""A language model with a teacher in one process, in two, and under ZeRO-3: real launches."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from support.language_run import BATCH, run
from support.recipes import REPOSITORY, environment

pytestmark = pytest.mark.slow

SCRIPT = str(REPOSITORY / "tests" / "support" / "language_run.py")
TORCHRUN = ["torchrun", "--standalone", "--nproc_per_node", "2", SCRIPT]
HALF: dict[str, Any] = {"per_device_train_batch_size": BATCH // 2, "micro_batch_size": 2}
ZERO_3 = HALF | {"deepspeed": str(REPOSITORY / "examples/accelerate_configs/zero3.json")}
needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")


@pytest.mark.parametrize("settings", [HALF, pytest.param(ZERO_3, marks=needs_deepspeed)], ids=["ddp", "zero3"])
def test_two_processes_train_as_one(settings: dict[str, Any], tmp_path: Path) -> None:
    run(tmp_path / "one")
    command = [*TORCHRUN, str(tmp_path / "two"), json.dumps(settings)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=540, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    one, two = (json.loads((tmp_path / name / "log.json").read_text()) for name in ("one", "two"))
    for name in ("loss", "causal_lm_loss", "feature_loss", "grad_norm", "macs"):
        expected = [entry[name] for entry in one if "loss" in entry]
        found = [entry[name] for entry in two if "loss" in entry]
        assert len(expected) == 4 and found == pytest.approx(expected, rel=2e-4), name
    weights = [load_file(tmp_path / name / "end" / "model.safetensors") for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert (weights[1][name] - value).abs().max() < 2e-4, name
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "two" / "end")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
