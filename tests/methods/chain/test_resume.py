"""A run that is killed anywhere ends as if nothing had happened."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hf_chain.errors import HfChainError
from hf_chain.files import write_manifest
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import Ledger, MemberRecord, read_family
from hf_chain.runs.training_run import last_whole_checkpoint
from hf_chain.trainer import ChainTrainer
from support.kills import leftovers, run_killed, run_to_the_end, seconds_of_work
from support.recipes import tiny_recipe, tiny_values, write_recipe
from support.stops import interrupt

MEMBERS = ("01-tiny", "02-small", "03-base")
# Everything that draws random numbers: augmentation, dropped image tokens, captions, order.
RANDOM = {
    "data__augmentation": {"crop_scale": [0.6, 1.0], "horizontal_flip": True},
    "training__image_token_keep": 0.5,
    "training__save_steps": 2,
}
FACTS = {"grown": 2, "evaluated_before": 3, "trained": 3, "evaluated": 3, "saved": 3, "run_finished": 1}


def weights(run_dir: Path) -> dict[str, bytes]:
    """The members' weights as they are on disk."""
    return {member: (run_dir / member / "model.safetensors").read_bytes() for member in MEMBERS}


def facts(record: MemberRecord) -> dict[str, Any]:
    """What the ledger knows of a member, without how fast the machine was, which its log and its card tell too."""
    fast = ("seconds", "images_per_second", "manifest_sha256", "card_sha256")
    return {key: value for key, value in asdict(record).items() if key not in fast}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended after the checkpoints of steps 2 and 4."""
    recipe = tiny_recipe(tmp_path_factory.mktemp("interrupted"), members=1, training__save_steps=2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, ChainTrainer, step=5)
        run(recipe)
    return recipe.run_dir / "checkpoints" / "01-tiny"


@pytest.fixture
def checkpoints(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of the interrupted run's checkpoints."""
    return Path(shutil.copytree(interrupted, tmp_path / "checkpoints"))


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = write_recipe(tmp_path / "whole.yaml", tiny_values(tmp_path / "whole", epochs=2, **RANDOM))
    killed = write_recipe(tmp_path / "killed.yaml", tiny_values(tmp_path / "killed", epochs=2, **RANDOM))
    expected, found = tmp_path / "whole" / "tiny", tmp_path / "killed" / "tiny"
    run_to_the_end(whole)
    hits = run_killed(killed, found, kills=4, seed=0, seconds=0.7 * seconds_of_work(expected))
    assert len(hits) >= 3, hits
    assert weights(found) == weights(expected), hits
    assert not leftovers(found)
    counts = Counter(entry["event"] for entry in Ledger(found).entries())
    assert {event: counts[event] for event in FACTS} == FACTS, hits
    for one, other in zip(read_family(found).members, read_family(expected).members, strict=True):
        assert facts(one) == facts(other)


@pytest.mark.slow
def test_a_run_with_data_workers_resumes_inside_an_epoch(tmp_path: Path) -> None:
    changes = RANDOM | {"training__dataloader_num_workers": 2, "training__dataloader_persistent_workers": True}
    recipe = tiny_recipe(tmp_path / "interrupted", 1, epochs=2, **changes)
    expected = run(tiny_recipe(tmp_path / "whole", 1, epochs=2, **changes))
    for step in (3, 11):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupt(patch, ChainTrainer, step)
            run(recipe)
    found = run(recipe)
    files = [folder / "01-tiny" / "model.safetensors" for folder in (found, expected)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_a_truncated_checkpoint_is_removed_and_the_one_before_it_used(checkpoints: Path, broken: str) -> None:
    path = checkpoints / "checkpoint-4" / broken
    path.write_bytes(path.read_bytes()[:-20])
    assert last_whole_checkpoint(checkpoints) == checkpoints / "checkpoint-2"
    assert not (checkpoints / "checkpoint-4").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "missing", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_a_checkpoint_without_all_its_files_is_removed(checkpoints: Path, missing: str) -> None:
    (checkpoints / "checkpoint-4" / missing).unlink()
    assert last_whole_checkpoint(checkpoints) == checkpoints / "checkpoint-2"
    assert not (checkpoints / "checkpoint-4").exists()


@pytest.mark.slow
def test_an_adapter_that_is_cut_short_and_a_missing_shard_are_seen(checkpoints: Path) -> None:
    adapter = checkpoints / "checkpoint-4" / "lora" / "adapter_model.safetensors"
    adapter.parent.mkdir()
    adapter.write_bytes((checkpoints / "checkpoint-4" / "model.safetensors").read_bytes())
    write_manifest(checkpoints / "checkpoint-4")
    assert last_whole_checkpoint(checkpoints) == checkpoints / "checkpoint-4"
    adapter.write_bytes(adapter.read_bytes()[:-20])
    assert last_whole_checkpoint(checkpoints) == checkpoints / "checkpoint-2"
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (checkpoints / "checkpoint-2" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert last_whole_checkpoint(checkpoints) is None


def test_what_is_kept_beside_checkpoints_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-2-backup").mkdir()
    assert last_whole_checkpoint(tmp_path) is None
    assert (tmp_path / "checkpoint-2-backup").is_dir()


@pytest.mark.slow
def test_checkpoints_of_another_number_of_processes_are_kept_and_refused(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process finds only its own random state in them."""
    run_dir = interrupted.parents[1]
    recipe = tiny_recipe(run_dir.parent, members=1, training__save_steps=2)
    before = sorted(interrupted.iterdir())
    monkeypatch.setattr("hf_chain.methods.runner.join_processes", lambda training: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(HfChainError, match="was begun with 1 process, and this launch has 2: launch 1, or remove"):
        run(recipe)
    assert sorted(interrupted.iterdir()) == before
    assert read_family(run_dir).environment["processes"] == 1


def test_no_checkpoint_is_found_where_nothing_was_trained(tmp_path: Path) -> None:
    assert last_whole_checkpoint(tmp_path / "checkpoints") is None
