"""SIGTERM ends a training with a checkpoint, from which it ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from hf_chain.cli import exit_cleanly
from hf_chain.errors import Terminated
from hf_chain.methods.chain.runner import run
from hf_chain.trainer import ChainTrainer
from support.recipes import tiny_recipe

WEIGHTS = "01-tiny/model.safetensors"


class Sigterm(TrainerCallback):
    """Sends SIGTERM to its own process before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 7])
def test_a_terminated_training_goes_on_from_where_it_ended(tmp_path: Path, step: int) -> None:
    """Of eight steps; a checkpoint falls due at none of them but the last."""
    before = signal.getsignal(signal.SIGTERM)
    expected = run(tiny_recipe(tmp_path / "whole", members=1, training__save_steps=100)) / WEIGHTS
    recipe, start = tiny_recipe(tmp_path / "ended", members=1, training__save_steps=100), ChainTrainer.train

    def train(trainer: ChainTrainer, **kwargs: Any) -> Any:
        trainer.add_callback(Sigterm(step))
        return start(trainer, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Terminated) as ended:
        patch.setattr(ChainTrainer, "train", train)
        run(recipe)
    checkpoints = recipe.run_dir / "checkpoints" / "01-tiny"
    assert ended.value.code == 143
    assert str(ended.value) == (
        f"SIGTERM at step {step + 1}: saved a checkpoint in {checkpoints}; the same command goes on from it"
    )
    assert (checkpoints / f"checkpoint-{step + 1}" / "manifest.json").exists()
    assert signal.getsignal(signal.SIGTERM) is before
    assert (run(recipe) / WEIGHTS).read_bytes() == expected.read_bytes()


def test_a_command_that_is_terminated_elsewhere_says_so_and_exits_with_143(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        exit_cleanly(lambda: os.kill(os.getpid(), signal.SIGTERM))
    signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 143
    assert capsys.readouterr().err == (
        "hf-chain: ended by SIGTERM; the same command goes on from the last checkpoint\n"
    )
