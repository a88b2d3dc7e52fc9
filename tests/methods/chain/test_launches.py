"""The same recipe in one process, in two, and under DeepSpeed, whose processes are killed and go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers import CLIPModel

from hf_chain.data import DataSettings, ScenesSettings, load_splits
from hf_chain.methods.chain.recipe import load_recipe
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import read_family
from support.launches import PROCESSES, Launch, killed_once, needs_deepspeed, zero
from support.recipes import EXAMPLE, GLOBAL_BATCH, accelerate_config, launch, tiny_values, write_recipe

pytestmark = pytest.mark.slow

HALF = f"training.per_device_train_batch_size={GLOBAL_BATCH // PROCESSES}"
MICRO = f"training.micro_batch_size={GLOBAL_BATCH // PROCESSES // 2}"
MEMBERS = ("01-tiny", "02-small")
"""The second one has a teacher with another embedding size, and so maps to the teacher."""


def configured(name: str) -> list[str]:
    """`accelerate launch` with one of the example configurations, on a port of its own."""
    return ["accelerate", "launch", "--config_file", accelerate_config(name), "--main_process_port", "0"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members on the scenes, in float32, that see half of the image tokens until the last quarter."""
    folder = tmp_path_factory.mktemp("launches")
    masked = {"training__image_token_keep": 0.5, "training__unmasked_tail": 0.25}
    return write_recipe(folder / "recipe.yaml", tiny_values(folder / "one", members=2, **masked))


@pytest.fixture(scope="module")
def one_process(recipe: Path) -> Path:
    """The run that the others are compared with, in this process."""
    return run(load_recipe(recipe))


def log_of(folder: Path) -> list[dict[str, Any]]:
    """What was logged at every step of a member."""
    return [entry for entry in json.loads((folder / "training_log.json").read_text()) if "loss" in entry]


def assert_same_run(found: Path, expected: Path, tolerance: float) -> None:
    """Same losses and gradient norms in every step, and folders of the same format."""
    for member in MEMBERS:
        ours, theirs = log_of(found / member), log_of(expected / member)
        for name in ("loss", "contrastive_loss", "logit_scale"):
            assert [entry[name] for entry in ours] == pytest.approx([entry[name] for entry in theirs], rel=tolerance)
        gradients = [[entry["grad_norm"] for entry in log] for log in (ours, theirs)]
        assert gradients[0] == pytest.approx(gradients[1], rel=10 * tolerance)
        assert sorted(path.name for path in (found / member).iterdir()) == sorted(
            path.name for path in (expected / member).iterdir()
        )
        assert format_of(found / member) == format_of(expected / member)
        _, loading = CLIPModel.from_pretrained(found / member, output_loading_info=True)
        assert not any(loading.values()), loading
    assert any(entry["feature_loss"] > 0 for entry in log_of(found / "02-small"))


def format_of(folder: Path) -> dict[str, tuple[str, list[int]]]:
    """Dtype and shape of every tensor of a member."""
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        parts = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118
        return {name: (part.get_dtype(), part.get_shape()) for name, part in parts.items()}


def kill_once(recipe: Path, *overrides: str, **variables: str) -> None:
    """Launches, and kills both processes once the second member has a checkpoint."""
    run_dir = Path(overrides[0].partition("=")[2]) / "tiny"
    arguments = [EXAMPLE, "--config", recipe, "--set", *overrides]
    killed_once(run_dir, "checkpoints/02-small/*/rng_state_1.pth", *arguments, **variables)
    assert read_family(run_dir).member("small").status != "saved"
    # DeepSpeed has files of its own, which nothing else writes: it is what trained.
    assert any(run_dir.glob("checkpoints/02-small/*/global_step*")) == ("ACCELERATE_USE_DEEPSPEED" in variables)


def run_killed_once(recipe: Path, *overrides: str, **variables: str) -> Path:
    """Launches, kills both processes once the second member has a checkpoint, and launches again."""
    kill_once(recipe, *overrides, **variables)
    Launch(EXAMPLE, "--config", recipe, "--set", *overrides, **variables).finish()
    return Path(overrides[0].partition("=")[2]) / "tiny"


def test_two_processes_train_as_one(recipe: Path, one_process: Path) -> None:
    output = recipe.parent / "ddp"
    result = launch(configured("ddp_cpu"), recipe, f"output_dir={output}", HALF)
    assert result.returncode == 0, result.stderr[-3000:]
    assert_same_run(output / "tiny", one_process, 1e-5)


def test_two_processes_with_accumulation_resume(recipe: Path, one_process: Path) -> None:
    found = run_killed_once(recipe, f"output_dir={recipe.parent / 'micro'}", HALF, MICRO)
    assert_same_run(found, one_process, 1e-5)


@needs_deepspeed
def test_zero_2_with_accumulation_resumes(recipe: Path, one_process: Path) -> None:
    output = recipe.parent / "zero2"
    kill_once(recipe, f"output_dir={output}", HALF, MICRO, **zero(2))
    result = launch(configured("zero2"), recipe, f"output_dir={output}", HALF, MICRO)
    assert result.returncode == 0, result.stderr[-3000:]
    assert_same_run(output / "tiny", one_process, 1e-4)


@needs_deepspeed
def test_zero_3_with_a_sharded_teacher_resumes(recipe: Path, one_process: Path) -> None:
    found = run_killed_once(recipe, f"output_dir={recipe.parent / 'zero3'}", HALF, **zero(3))
    assert_same_run(found, one_process, 1e-4)


def test_two_processes_resume_a_stream_as_one_reads_it(tmp_path: Path) -> None:
    rows = load_splits(DataSettings(scenes=ScenesSettings(train=160, validation=32, test=8, compositional=8)))
    # Not as parquet: at the end of every pass of that, `datasets` sleeps for seconds.
    for split, count in (("train", 4), ("validation", 1)):
        rows[split].save_to_disk(tmp_path / split, num_shards=count)
    files = {split: str(tmp_path / split / "*.arrow") for split in ("train", "validation")}
    data = {"source": "arrow", "data_files": files, "streaming": True, "caption_column": "captions"}
    data |= {"samples_per_epoch": 256, "augmentation": {"crop_scale": [0.5, 1.0]}}
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_values(tmp_path / "one", members=2, data=data))
    one = run(load_recipe(recipe))
    assert_same_run(run_killed_once(recipe, f"output_dir={tmp_path / 'two'}", HALF), one, 1e-5)


def test_two_processes_fill_a_cache_with_what_the_live_teacher_says(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_values(tmp_path / "live", members=2))
    live = run(load_recipe(recipe))
    workers = "training.dataloader_num_workers=1"
    cached = (f"output_dir={tmp_path / 'cached'}", HALF, workers, "cache_teacher_features=true")
    Launch(EXAMPLE, "--config", recipe, "--set", *cached).finish()
    assert_same_run(tmp_path / "cached" / "tiny", live, 1e-5)


def test_two_processes_stop_where_one_does(tmp_path: Path) -> None:
    values = tiny_values(tmp_path / "one", members=2, until={"target": 0.0, "every": 0.6})
    recipe = write_recipe(tmp_path / "recipe.yaml", values)
    one = run(load_recipe(recipe))
    two = run_killed_once(recipe, f"output_dir={tmp_path / 'two'}", HALF)
    assert_same_run(two, one, 1e-5)
    for ours, theirs in zip(read_family(two).members, read_family(one).members, strict=True):
        assert ours.stopped == theirs.stopped == {"why": "reached", "step": 5, "steps": 5, "cap": 8}
        assert theirs.curve[-1]["metrics"] == theirs.metrics_after["validation"]
        assert ours.training_macs == theirs.training_macs and ours.evaluation_macs == theirs.evaluation_macs


def test_a_launch_that_would_train_in_one_process_only_is_refused(recipe: Path) -> None:
    launcher = ["accelerate", "launch", "--cpu", "--num_processes", "2"]
    result = launch(launcher, recipe, f"output_dir={recipe.parent / 'alone'}")
    assert result.returncode != 0
    ours = [line for line in result.stderr.splitlines() if line.startswith("hf-chain:")]
    assert len(ours) == 1 and "--multi_gpu" in ours[0], result.stderr
    assert not (recipe.parent / "alone").exists()
