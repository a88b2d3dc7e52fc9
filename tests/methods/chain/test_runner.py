"""A run from its recipe to its folders, in this process."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from safetensors.torch import load_file

from hf_chain.data.scenes import build_scenes
from hf_chain.data.settings import ScenesSettings
from hf_chain.errors import HfChainError
from hf_chain.methods.chain.member import MemberStage
from hf_chain.methods.chain.recipe import Recipe, load_recipe
from hf_chain.methods.chain.runner import run
from hf_chain.report.plots import draw_plots
from hf_chain.runs.ledger import read_family
from hf_chain.trainer import ChainTrainer
from support.forks import forked
from support.recipes import GLOBAL_BATCH, tiny_recipe, tiny_values, write_recipe

pytestmark = pytest.mark.slow

FOLDERS = ("01-tiny", "02-small", "03-base")

WITHOUT_HF_CHAIN = """
import sys

class NotInstalled:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "hf_chain":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoProcessor, CLIPModel

image, *folders = sys.argv[1:]
embeddings = {}
for folder in folders:
    model, info = CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert type(model) is CLIPModel and not info["missing_keys"] and not info["unexpected_keys"], info
    inputs = AutoProcessor.from_pretrained(folder)(images=Image.open(image), return_tensors="pt")
    with torch.no_grad():
        embeddings[folder.rpartition("/")[2]] = model.get_image_features(**inputs).pooler_output
save_file(embeddings, "embeddings.safetensors")
"""


@dataclass
class FinishedRun:
    """A run of three members, and what its models said about an image when they were saved."""

    recipe: Recipe
    folder: Path
    embeddings: dict[str, torch.Tensor]


def scenes(split: str) -> Dataset:
    """The scenes of the tiny recipe."""
    return build_scenes(ScenesSettings(**tiny_values(Path())["data"]["scenes"]))[split]


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image on disk."""
    path = tmp_path_factory.mktemp("image") / "scene.png"
    scenes("test")[0]["image"].save(path)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, photograph: Path) -> FinishedRun:
    """A whole run with its plots, watched as it saves its members."""
    recipe = tiny_recipe(tmp_path_factory.mktemp("runs"))
    embeddings = {}

    def save_watched(stage: MemberStage, trainer: ChainTrainer) -> None:
        inputs = stage.data.processor(images=Image.open(photograph), return_tensors="pt")
        with torch.no_grad():
            embeddings[stage.folder.name] = trainer.model.eval().get_image_features(**inputs).pooler_output
        save(stage, trainer)

    save = MemberStage._save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemberStage, "_save", save_watched)
        patch.setattr("hf_chain.report.write.draw_plots", draw_plots)
        return FinishedRun(recipe, run(recipe), embeddings)


def losses(folder: Path) -> list[float]:
    """Training losses that a member's log holds."""
    return [entry["loss"] for entry in json.loads((folder / "training_log.json").read_text()) if "loss" in entry]


def test_a_run_leaves_ledger_members_and_report(finished: FinishedRun) -> None:
    run_dir = finished.folder
    for folder in FOLDERS:
        names = {path.name for path in (run_dir / folder).iterdir()}
        assert {"model.safetensors", "config.json", "tokenizer.json", "README.md", "recipe.yaml"} <= names
        assert {"training_log.json", "evaluation.json"} <= names
        assert not names & {"training_args.bin", "optimizer.pt", "teacher_maps.safetensors"}
    report = {path.name for path in (run_dir / "report").iterdir()}
    assert {"family.md", "family.json", "index.html"} <= report
    assert any(name.endswith(".png") for name in report)
    assert (run_dir / "ledger.jsonl").exists()
    assert not list(run_dir.glob("checkpoints/*"))


def test_the_ledger_tells_the_story_of_every_member(finished: FinishedRun) -> None:
    family = read_family(finished.folder)
    assert [member.status for member in family.members] == ["saved"] * 3
    assert [member.parent for member in family.members] == [None, "tiny", "small"]
    assert family.finished
    for member in family.members:
        assert set(member.metrics_before) == set(member.metrics_after) == {"validation", "test", "compositional"}
        assert member.samples == 256
        assert member.training_macs["total"] == member.training_macs["student"] + member.training_macs["teacher"]


def test_members_load_where_hf_chain_is_not_installed(finished: FinishedRun, photograph: Path, tmp_path: Path) -> None:
    folders = [str(finished.folder / folder) for folder in FOLDERS]
    forked("-c", WITHOUT_HF_CHAIN, photograph, *folders, folder=tmp_path)
    outside = load_file(tmp_path / "embeddings.safetensors")
    assert outside.keys() == finished.embeddings.keys()
    for folder, embedding in finished.embeddings.items():
        torch.testing.assert_close(outside[folder], embedding, rtol=1e-6, atol=1e-6)


def test_running_again_trains_nothing_and_records_nothing(finished: FinishedRun) -> None:
    recipe, run_dir = finished.recipe, finished.folder
    watched = [run_dir / "ledger.jsonl", *(run_dir / folder / "model.safetensors" for folder in FOLDERS)]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in watched]
    assert run(recipe) == run_dir
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in watched] == before


def test_another_recipe_is_refused_in_one_line(finished: FinishedRun) -> None:
    changed = tiny_recipe(Path(finished.recipe.output_dir), training__learning_rate=5e-4)
    with pytest.raises(HfChainError, match=r"learning_rate=0\.001.*0\.0005") as refusal:
        run(changed)
    assert "\n" not in str(refusal.value)


def test_a_finished_run_whose_member_was_removed_makes_it_again(finished: FinishedRun, tmp_path: Path) -> None:
    recipe, run_dir = finished.recipe, finished.folder
    copy = tmp_path / run_dir.name
    shutil.copytree(run_dir, copy)
    shutil.rmtree(copy / FOLDERS[2])
    run(recipe.model_copy(update={"output_dir": str(tmp_path)}))
    again, first = (load_file(folder / FOLDERS[2] / "model.safetensors") for folder in (copy, run_dir))
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_independent_members_have_neither_parent_nor_teacher(tmp_path: Path) -> None:
    run_dir = run(tiny_recipe(tmp_path, members=2).as_independent())
    family = read_family(run_dir)
    assert [member.parent for member in family.members] == [None, None]
    assert [member.training_macs["teacher"] for member in family.members] == [0, 0]
    assert "feature_loss" not in (run_dir / "02-small" / "training_log.json").read_text()


def test_the_first_member_grows_from_a_published_predecessor(finished: FinishedRun, tmp_path: Path) -> None:
    published = str(finished.folder / "01-tiny")
    values = tiny_values(tmp_path, predecessor=published, tokenizer={"name_or_path": published})
    values["members"] = values["members"][1:2]
    write_recipe(tmp_path / "recipe.yaml", values)
    run_dir = run(load_recipe(tmp_path / "recipe.yaml"))
    member = read_family(run_dir).member("small")
    assert (member.parent, member.operator) == (published, "exact")
    assert max(member.growth_error.values()) < 1e-5
    assert member.training_macs["teacher"] > 0


def test_cached_teacher_features_give_the_losses_of_a_live_teacher(finished: FinishedRun, tmp_path: Path) -> None:
    cached_dir = run(tiny_recipe(tmp_path, cache_teacher_features=True))
    for folder in FOLDERS:
        assert losses(cached_dir / folder) == pytest.approx(losses(finished.folder / folder), rel=1e-5)


def test_a_stream_of_tar_shards_trains_for_samples_per_epoch(tmp_path: Path) -> None:
    for split, count in (("train", 160), ("validation", 32)):
        _write_shard(tmp_path / f"{split}.tar", split, count)
    data = {
        "source": "webdataset",
        "data_files": {split: str(tmp_path / f"{split}.tar") for split in ("train", "validation")},
        "image_column": "png",
        "caption_column": "txt",
        "streaming": True,
        "shuffle_buffer": 64,
        "samples_per_epoch": 128,
    }
    run_dir = run(tiny_recipe(tmp_path / "runs", members=2, data=data))
    for member in read_family(run_dir).members:
        assert (member.status, member.samples) == ("saved", 128)
    assert len(losses(run_dir / "02-small")) == 128 // GLOBAL_BATCH


def _write_shard(path: Path, split: str, count: int) -> None:
    rows = scenes(split).cast_column("image", ImageFeature(decode=False))
    with tarfile.open(path, "w") as shard:
        for number, row in enumerate(rows.select(range(count))):
            for suffix, content in (("png", row["image"]["bytes"]), ("txt", row["captions"][0].encode())):
                entry = tarfile.TarInfo(f"{number:05d}.{suffix}")
                entry.size = len(content)
                shard.addfile(entry, io.BytesIO(content))
