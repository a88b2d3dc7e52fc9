"""Suites: what can be had is measured, the rest is skipped by name, and mistakes are said before work begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from datasets import DatasetDict
from huggingface_hub import constants

from hf_chain.errors import HfChainError
from hf_chain.evaluation.image_features import image_tower
from hf_chain.transfer.model import load_vision_model
from hf_chain.transfer.rows import load_set
from hf_chain.transfer.settings import TransferSet, load_suite
from support.command_line import Command
from support.recipes import REPOSITORY
from support.shades import pictures

SuiteOf = Callable[..., Path]


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is out of reach, and says so at once."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("no_hub")
def test_what_can_be_had_is_measured_and_the_rest_is_skipped_by_name(
    hf_chain: Command, vit: Path, shades: Path, suite_of: SuiteOf
) -> None:
    local = {"name": "shades", "source": str(shades), "kind": ["linear_probe", "zero_shot"]}
    away = [
        {"name": "away", "source": "nobody/away", "kind": "linear_probe"},
        {"name": "gone", "source": str(shades / "gone"), "kind": "linear_probe"},
    ]
    outcome = hf_chain("eval", vit, "--suite", suite_of(local, *away))
    assert outcome.status == 3, outcome.err
    found = json.loads(outcome.out)
    assert found["results"].keys() == {"shades"}
    result = found["results"]["shades"]
    assert result["metrics"] == {"linear_probe_top1": 1.0, "linear_probe_top5": 1.0}
    assert (result["split"], result["classes"], result["trials"]["linear_probe_top1"]) == ("test", 3, 15)
    assert result["macs"] == 45 * image_tower(load_vision_model(vit)[0]).macs
    assert found["skipped"].keys() == {"shades", "away", "gone"}
    assert "without a text tower" in found["skipped"]["shades"]
    assert "nobody/away" in found["skipped"]["away"] and "no folder here" in found["skipped"]["gone"]
    assert not any("\n" in reason for reason in found["skipped"].values())
    tuned = hf_chain("eval", vit, "--suite", suite_of(local | {"kind": "fine_tune", "fine_tune": {"epochs": 1}}))
    assert tuned.status == 0 and "fine_tune_top1" in json.loads(tuned.out)["results"]["shades"]["metrics"]
    message = hf_chain("eval", vit, "--suite", suite_of(*away)).message
    assert message.startswith("none of the 2 data sets of") and "nobody/away" in message


def test_mistakes_are_said_before_work_begins(
    hf_chain: Command, vit: Path, shades: Path, suite_of: SuiteOf, tmp_path: Path
) -> None:
    def message(model: Path = vit, **fields: object) -> str:
        one = {"name": "shades", "source": str(shades), "kind": "linear_probe"} | fields
        return hf_chain("eval", model, "--suite", suite_of(one)).message

    assert "datasets.shades.kind.0 is 'probe'" in message(kind="probe")
    assert "datasets.shades.imagecolumn is unknown; did you mean image_column?" in message(imagecolumn="a")
    assert "datasets.shades: split 'train' has no column 'photo', but 'picture', 'shade'" in message(
        image_column="photo"
    )
    assert "class_names has 2 names and column 'shade' 3 classes: give one for each" in message(class_names=["a", "b"])
    assert "templates has 'a photo'; a template needs exactly one {}" in message(templates=["a photo"])
    assert "class_names is 'dogs'; give a list, or the name of a .txt file" in message(class_names="dogs")
    DatasetDict(train=pictures(30, ["a", "b", "c"]), test=pictures(15)).save_to_disk(tmp_path / "other")
    assert "'shade' has the 3 classes a, b, c in split 'train' and the 3 classes dark" in message(
        source=str(tmp_path / "other")
    )
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text('{"model_type": "llama"}')
    assert message(tmp_path / "llama").endswith("which has no vision tower: give a CLIP, a ViT or another")
    twice = suite_of(*[{"name": "one", "source": str(shades), "kind": "linear_probe"}] * 2)
    assert "datasets has 'one' twice" in hf_chain("eval", vit, "--suite", twice).message
    assert "give one" in hf_chain("eval", vit).message


def test_columns_classes_and_templates_are_found_or_read_from_files_beside_the_data(shades: Path) -> None:
    found = load_set(TransferSet(name="shades", source=str(shades), kind="zero_shot"))
    assert (found.image_column, found.label_column, found.train) == ("picture", "shade", None)
    assert found.class_names == [("dark",), ("dull",), ("light",)] and found.templates == ("a photo of a {}.",)
    (shades / "names.txt").write_text("night\nfog\nday, or noon\n")
    (shades / "templates.txt").write_text("the {c}.\na {}\n")
    files = {"class_names": "names.txt", "templates": "templates.txt"}
    found = load_set(TransferSet(name="shades", source=str(shades), kind="linear_probe", **files))
    assert found.class_names == [("night",), ("fog",), ("day, or noon",)] and found.templates == ("the {}.", "a {}")
    assert found.train is not None and len(found.train) == 30
    again = pictures(5).remove_columns("shade").rename_column("picture", "again")
    datasets.concatenate_datasets([pictures(5), again], axis=1).save_to_disk(shades / "two")
    with pytest.raises(HfChainError, match="several columns of images, picture, again: set image_column"):
        load_set(TransferSet(name="two", source=str(shades / "two"), kind="zero_shot", split="train"))
    pictures(6).cast_column("shade", datasets.Value("int64")).save_to_disk(shades / "numbers")
    plain = {"name": "numbers", "source": str(shades / "numbers"), "label_column": "shade", "split": "train"}
    assert load_set(TransferSet(**plain, kind="linear_probe")).class_names[2] == ("class 2",)
    with pytest.raises(HfChainError, match="column 'shade' holds numbers without names: give class_names"):
        load_set(TransferSet(**plain, kind="zero_shot"))
    with pytest.raises(HfChainError, match="class_names has 2 names and column 'shade' 3 classes"):
        load_set(TransferSet(**plain, kind="zero_shot", class_names=["a", "b"]))
    pictures(5).remove_columns("shade").save_to_disk(shades / "none")
    with pytest.raises(HfChainError, match="no column of classes, but 'picture': set label_column"):
        load_set(TransferSet(name="none", source=str(shades / "none"), kind="zero_shot", split="train"))


def test_the_suites_of_the_examples_are_read() -> None:
    public = load_suite(REPOSITORY / "examples" / "suites" / "zero_shot.yaml", ["datasets.mnist.max_samples=9"])
    assert len(public.datasets) == 37 and {tuple(one.kind) for one in public.datasets} == {("zero_shot",)}
    assert [one.max_samples for one in public.datasets if one.name == "mnist"] == [9]
    assert load_suite(REPOSITORY / "examples" / "suites" / "tiny_imagenet.yaml").datasets[0].trains
