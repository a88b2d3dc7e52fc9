"""Steps of a member's training: too few are refused or warned of before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.planning import family_cost
from hf_chain.methods.chain.recipe import Recipe
from hf_chain.methods.chain.runner import warn_of_idle_training
from hf_chain.tasks.paradigm import DataSize
from support.recipes import tiny_recipe, tiny_values


def streamed(folder: Path, epochs: float) -> Recipe:
    """A recipe of one member on a stream of 100 images an epoch."""
    values = tiny_values(folder, members=1, epochs=epochs)
    values["data"] = {"source": "me/pairs", "caption_column": "text", "streaming": True, "samples_per_epoch": 100}
    return Recipe.model_validate(values)


def test_a_stream_with_less_than_a_step_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = r"members.tiny.epochs is 0.3, in which the stream has 30 samples, less than a global batch of 32: raise it"
    with pytest.raises(HfChainError, match=words):
        family_cost(streamed(tmp_path, 0.3))
    assert family_cost(streamed(tmp_path, 0.4)).members[0].steps == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(HfChainError, match="less than a global batch of 64"):
        family_cost(streamed(tmp_path, 0.4))


@pytest.mark.parametrize(
    ("samples", "epochs", "processes", "steps"), [(100, 2, 1, 6), (100, 2, 2, 2), (64, 0.4, 1, 1)]
)
def test_steps_are_those_that_the_trainer_takes(
    samples: int, epochs: float, processes: int, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    recipe = tiny_recipe(tmp_path, members=1, epochs=epochs)
    assert family_cost(recipe, DataSize(samples, 100)).members[0].steps == steps


def test_a_member_that_learns_nothing_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = tiny_recipe(tmp_path, members=2, training__learning_rate=0.0, training__warmup_steps=8)
    warn_of_idle_training(recipe, family_cost(recipe, DataSize(256, 100)))
    assert [text.split(" is ")[0] for text in caplog.messages] == [
        f"members.{name}: {field}" for name in ("tiny", "small") for field in ("learning_rate", "warmup_steps")
    ]
