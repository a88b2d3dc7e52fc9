"""Experiment trackers: nothing they write is lost, and every member has a run of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import transformers.trainer
from transformers import TrainerCallback

from hf_chain.methods.chain.runner import run
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.methods.graft.runner import run_graft
from hf_chain.runs.training_run import TrackedTraining, keep_logs
from support.graft_recipes import given_graft_values
from support.recipes import tiny_recipe

WANDB = ("WANDB_RUN_GROUP", "WANDB_RUN_ID", "WANDB_RESUME")


class Tracker(TrainerCallback):
    """Reads its folder from the environment as TensorBoard's callback, and writes beside checkpoints as others do."""

    def __init__(self) -> None:
        self.folder = Path(os.environ["TENSORBOARD_LOGGING_DIR"])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        told = {"name": args.run_name, "project": args.project} | {name: os.environ[name] for name in WANDB}
        (self.folder / "run.json").write_text(json.dumps(told))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        emissions = Path(args.output_dir) / "carbon" / "emissions.csv"
        emissions.parent.mkdir()
        emissions.write_text("1.5")


@pytest.fixture(autouse=True)
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trainer has the tracker, and what `datasets` remembers stays out of the user's home."""
    monkeypatch.setattr(transformers.trainer, "DEFAULT_CALLBACKS", [*transformers.trainer.DEFAULT_CALLBACKS, Tracker])
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets_cache")


def told(folder: Path) -> dict[str, str]:
    """What a training was told."""
    return json.loads((folder / "run.json").read_text())


@pytest.mark.slow
def test_files_of_trackers_survive_in_one_folder_and_members_have_runs_of_their_own(tmp_path: Path) -> None:
    folder = run(tiny_recipe(tmp_path, members=2))
    assert sorted(path.relative_to(folder).as_posix() for path in folder.glob("logs/*/**/*.*")) == [
        "logs/small/carbon/emissions.csv",
        "logs/small/run.json",
        "logs/tiny/carbon/emissions.csv",
        "logs/tiny/run.json",
    ]
    assert not (folder / "checkpoints").exists()
    small, tiny = told(folder / "logs" / "small"), told(folder / "logs" / "tiny")
    assert (tiny["name"], small["name"]) == ("tiny", "small")
    assert {tiny["WANDB_RUN_GROUP"], small["WANDB_RUN_GROUP"], tiny["project"], small["project"]} == {folder.name}
    assert tiny["WANDB_RUN_ID"] != small["WANDB_RUN_ID"] and tiny["WANDB_RESUME"] == "allow"
    assert not {"TENSORBOARD_LOGGING_DIR", *WANDB} & os.environ.keys()


@pytest.mark.slow
def test_a_recipe_says_where_trackers_write_and_what_runs_are_called(tmp_path: Path) -> None:
    training = {"training__logging_dir": str(tmp_path / "boards"), "training__run_name": "night"}
    folder = run(tiny_recipe(tmp_path, members=1, **training))
    board = told(tmp_path / "boards" / folder.name / "tiny")
    assert (
        board["name"] == "night-tiny"
        and TrackedTraining(folder, "tiny", {"project": "ours"}).fields["project"] == "ours"
    )
    assert (tmp_path / "boards" / folder.name / "tiny" / "carbon").is_dir() and not (folder / "logs").exists()


@pytest.mark.slow
def test_a_run_that_goes_on_after_a_kill_goes_on_with_its_trackers_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(tmp_path, members=1)
    with monkeypatch.context() as patch:
        patch.setattr("hf_chain.methods.chain.member.MemberStage._save", lambda *_: exit("killed"))
        with pytest.raises(SystemExit):
            run(recipe)
    first = told(recipe.run_dir / "logs" / "tiny")
    (recipe.run_dir / "checkpoints" / "01-tiny" / "carbon").rename(tmp_path / "carbon")
    assert told(run(recipe) / "logs" / "tiny") == first


@pytest.mark.slow
def test_stages_of_a_graft_are_tracked_like_members(tmp_path: Path) -> None:
    stage = {"name": "encoder", "decoder": "surrogate", "parts": {"adapter": 1e-3}, "epochs": 0.2}
    values = given_graft_values(
        tmp_path,
        [stage],
        surrogate__translator=["train:hidden"],
        surrogate__translator_training={"run_name": "night"},
    )
    folder = run_graft(GraftRecipe.model_validate(values))
    assert {path.parent.name: told(path.parent)["name"] for path in folder.glob("logs/*/run.json")} == {
        "surrogate": "night-surrogate",
        "encoder": "encoder",
    }
    assert len(list(folder.glob("logs/*/carbon/emissions.csv"))) == 2 and not (folder / "checkpoints").exists()


def test_what_is_kept_replaces_nothing(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "trainer").mkdir(exist_ok=True)
        (tmp_path / "trainer" / "emissions.csv").write_text(str(number))
        keep_logs(tmp_path / "trainer", tmp_path / "logs")
    kept = {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()}
    assert kept == {"emissions.csv": "0", "emissions.csv.1": "1", "emissions.csv.2": "2"}


@pytest.mark.slow
def test_boards_of_members_lie_side_by_side(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    folder = run(tiny_recipe(tmp_path, members=2, training__report_to="tensorboard"))
    assert {path.parent.name for path in folder.glob("logs/*/events.out.*")} == {"tiny", "small"}


@pytest.mark.slow
def test_members_have_runs_of_their_own_in_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    run(tiny_recipe(tmp_path, members=2, training__report_to="wandb"))
    assert len({path.name for path in tmp_path.glob("wandb/offline-run-*/run-*.wandb")}) == 2
    assert wandb.run is None
