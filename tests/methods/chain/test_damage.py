"""What was damaged, or is another's, is noticed before anything is built on it: made again, or named in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hf_chain.commands.push import push_pending
from hf_chain.errors import HfChainError
from hf_chain.files import first_difference, write_manifest
from hf_chain.hub import HubSettings, RetryPolicy
from hf_chain.methods.chain.recipe import Recipe
from hf_chain.methods.chain.runner import run
from hf_chain.methods.context import RunContext
from hf_chain.runs.ledger import Ledger, read_family
from hf_chain.runs.lock import only_run
from hf_chain.trainer import ChainTrainer, stage_trainer
from support.damage import DAMAGES, flip
from support.recipes import tiny_recipe
from support.stops import interrupt

pytestmark = pytest.mark.slow

CHANGES: dict[str, Any] = {"cache_teacher_features": True, "training__save_steps": 2}
WEIGHTS = "02-small/model.safetensors"


def recipe_in(folder: Path) -> Recipe:
    """Two members, the second one with cached features of its teacher."""
    return tiny_recipe(folder, members=2, **CHANGES)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run's folder."""
    folder = tmp_path_factory.mktemp("finished")
    run(recipe_in(folder))
    return folder


@pytest.fixture(scope="module")
def interrupted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, ended in the second member after the checkpoints of steps 2 and 4."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("runs") / "interrupted"))
    shutil.rmtree(folder / "tiny" / "02-small")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, ChainTrainer, step=5)
        run(recipe_in(folder))
    return folder


@pytest.fixture
def whole(finished: Path, tmp_path: Path) -> Path:
    """A copy of the whole run."""
    return Path(shutil.copytree(finished, tmp_path / "runs")) / "tiny"


@pytest.fixture
def begun(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of the interrupted run."""
    return Path(shutil.copytree(interrupted, tmp_path / "runs")) / "tiny"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("01-tiny/model.safetensors", "flipped"),
        ("01-tiny/model.safetensors", "deleted"),
        ("02-small/config.json", "zeroed"),
        ("01-tiny/manifest.json", "cut"),
    ],
)
def test_a_damaged_member_is_named_and_nothing_is_said_to_be_done(whole: Path, name: str, damage: str) -> None:
    DAMAGES[damage](whole / name)
    before = (whole / "ledger.jsonl").read_bytes()
    remedy = "restore it, or remove that folder to make it again"
    with pytest.raises(HfChainError, match=rf"{(whole / name).parent} is damaged \(.*\): {remedy}"):
        run(recipe_in(whole.parent))
    assert (whole / "ledger.jsonl").read_bytes() == before


def test_a_damaged_member_is_neither_pushed_nor_grown_from(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flip(whole / "01-tiny" / "model.safetensors")
    report = push_pending(whole, HubSettings(prefix="you/tiny"), policy=RetryPolicy(attempts=1))
    assert "01-tiny is damaged (model.safetensors has changed" in report.failed["tiny"]
    shutil.rmtree(whole / "02-small")
    # Damaged after the run has looked at it.
    monkeypatch.setattr("hf_chain.methods.runner._check_saved_steps", lambda *_: None)
    with pytest.raises(HfChainError, match="01-tiny is damaged"):
        run(recipe_in(whole.parent))


def test_the_whole_folder_of_another_member_is_not_taken_for_it(whole: Path) -> None:
    shutil.rmtree(whole / "02-small")
    shutil.copytree(whole / "01-tiny", whole / "02-small")
    with pytest.raises(HfChainError, match="02-small is not what small was saved as, but another whole folder"):
        run(recipe_in(whole.parent))


def test_a_removed_member_is_made_again(whole: Path) -> None:
    expected = (whole / WEIGHTS).read_bytes()
    shutil.rmtree(whole / "02-small")
    run(recipe_in(whole.parent))
    assert (whole / WEIGHTS).read_bytes() == expected


@pytest.mark.parametrize("left", [None, b"", b'{"time": "2026-11-29T1'])
def test_a_run_without_its_ledger_is_not_overwritten(whole: Path, left: bytes | None) -> None:
    (whole / "ledger.jsonl").unlink()
    if left is not None:
        # As a power cut or a full disk leaves it.
        (whole / "ledger.jsonl").write_bytes(left)
    before = (whole / WEIGHTS).stat().st_mtime_ns
    with pytest.raises(HfChainError, match=r"holds 01-tiny and no ledger\.jsonl that says how it was made"):
        run(recipe_in(whole.parent))
    assert (whole / WEIGHTS).stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["01-tiny", "processor", "teacher_features", "checkpoints/02-small", ""])
def test_a_link_to_a_disk_that_is_gone_is_named_before_anything_is_made_again(begun: Path, name: str) -> None:
    shutil.rmtree(begun / name)
    (begun / name).symlink_to("/mnt/unmounted/disk")
    with pytest.raises(HfChainError, match=rf"{begun / name} links to /mnt/unmounted/disk, which is gone: bring it"):
        run(recipe_in(begun.parent))


def test_a_member_on_another_disk_is_a_member(whole: Path, tmp_path: Path) -> None:
    shutil.move(whole / "01-tiny", tmp_path / "other disk")
    (whole / "01-tiny").symlink_to(tmp_path / "other disk")
    before = (whole / "ledger.jsonl").read_bytes()
    run(recipe_in(whole.parent))
    assert (whole / "ledger.jsonl").read_bytes() == before


def test_a_run_that_waited_for_the_lock_looks_again_at_what_was_begun(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one began it with another recipe, after this one had looked and before it held the lock."""
    lock = only_run
    ledger = (whole / "ledger.jsonl").read_bytes()
    for path in whole.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextmanager
    def waited(folder: Path) -> Iterator[None]:
        with lock(folder):
            (folder / "ledger.jsonl").write_bytes(ledger)
            yield

    monkeypatch.setattr("hf_chain.methods.runner.only_run", waited)
    with pytest.raises(HfChainError, match=r"was begun with training\.save_steps=2, the recipe now says 4"):
        run(tiny_recipe(whole.parent, members=2, **CHANGES | {"training__save_steps": 4}))


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "teacher_maps.safetensors"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(begun: Path, finished: Path, name: str) -> None:
    flip(begun / "checkpoints" / "02-small" / "checkpoint-4" / name)
    run(recipe_in(begun.parent))
    assert (begun / WEIGHTS).read_bytes() == (finished / "tiny" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("damage", ["flipped", "zeroed"])
def test_a_damaged_cache_is_made_again(begun: Path, finished: Path, damage: str) -> None:
    cache = next((begun / "teacher_features").iterdir())
    DAMAGES[damage](cache / "rows.npy")
    run(recipe_in(begun.parent))
    assert first_difference(cache) is None
    assert (begun / WEIGHTS).read_bytes() == (finished / "tiny" / WEIGHTS).read_bytes()


def test_a_damaged_card_is_written_anew_and_a_changed_one_is_named(
    whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cards = [whole / name / "README.md" for name in ("01-tiny", "02-small")]
    before = [card.read_bytes() for card in cards]
    DAMAGES["zeroed"](cards[0])
    cards[1].write_bytes(before[1] + b"A note of mine.\n")
    run(recipe_in(whole.parent))
    assert [card.read_bytes() for card in cards] == [before[0], before[1] + b"A note of mine.\n"]
    assert f"{cards[0]} is gone or damaged: it is written anew" in caplog.text
    assert f"{cards[1]} is not as it was written: it is kept as edited" in caplog.text


def test_a_damaged_cache_of_a_whole_run_is_removed(whole: Path) -> None:
    cache = next((whole / "teacher_features").iterdir())
    flip(cache / "texts.npy")
    run(recipe_in(whole.parent))
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["cut", "deleted"])
def test_a_damaged_processor_is_made_again_from_a_member(whole: Path, damage: str) -> None:
    before = {path.name: path.read_bytes() for path in (whole / "processor").iterdir()}
    DAMAGES[damage](whole / "processor" / "tokenizer.json")
    run(recipe_in(whole.parent))
    assert {path.name: path.read_bytes() for path in (whole / "processor").iterdir()} == before


def test_a_run_that_is_refused_by_the_lock_has_written_nothing(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_chain.runs.lock.LAST_BREATH", 0.2)
    (begun / "ledger.jsonl").unlink()
    shutil.rmtree(begun / "01-tiny")
    before = {path: path.stat().st_mtime_ns for path in begun.rglob("*") if path.name != ".lock"}
    with only_run(begun), pytest.raises(HfChainError, match="is being run by another process"):
        run(tiny_recipe(begun.parent, members=2, tokenizer__vocab_size=700))
    assert {path: path.stat().st_mtime_ns for path in begun.rglob("*") if path.name != ".lock"} == before


def test_checkpoints_are_removed_after_the_ledger_says_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def recorded(function: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            order.append(name_of(*args))
            return result

        return call

    monkeypatch.setattr(Ledger, "append", recorded(Ledger.append, lambda ledger, event, *_: event))
    monkeypatch.setattr(
        RunContext, "remove_checkpoints", recorded(RunContext.remove_checkpoints, lambda *_: "removed")
    )
    noted = recorded(write_manifest, lambda folder: f"manifest of {folder.name}")
    monkeypatch.setattr("hf_chain.files.write_manifest", noted)
    monkeypatch.setattr(stage_trainer, "write_manifest", noted)
    rotated = recorded(stage_trainer.rotate_checkpoints, lambda *_: "rotated")
    monkeypatch.setattr(stage_trainer, "rotate_checkpoints", rotated)
    run(tiny_recipe(tmp_path, members=1, training__save_steps=4))
    expected = ["manifest of checkpoint-4", "rotated", "manifest of checkpoint-8", "rotated", "trained", "evaluated"]
    expected += ["manifest of .01-tiny.partial", "saved", "removed"]
    begin = order.index("manifest of checkpoint-4")
    assert order[begin : begin + len(expected)] == expected
    assert read_family(tmp_path / "tiny").member("tiny").manifest_sha256
