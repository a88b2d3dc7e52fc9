"""A run goes on with the data that it began with, or not at all; other versions of the libraries are said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.recipe import Recipe
from hf_chain.methods.chain.runner import run
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.methods.graft.runner import run_graft
from hf_chain.runs.ledger import Ledger, read_family
from hf_chain.trainer import ChainTrainer, GraftTrainer
from support.damage import flip
from support.graft_recipes import streamed_graft_values
from support.recipes import tiny_recipe
from support.stops import interrupt

pytestmark = pytest.mark.slow
ROWS = 40
TEXTS = "captions, labels, conversations or texts differ"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what `datasets` and the checks remember out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets_cache")


def write_split(folder: Path, names: list[int], texts: list[str], colour: int = 30) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = []
    for row, (name, text) in enumerate(zip(names, texts, strict=True)):
        Image.new("RGB", (20, 16), (6 * name, 90, colour)).save(folder / f"{row:02d}.png")
        rows.append(json.dumps({"file_name": f"{row:02d}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))


def write_data(folder: Path, train: int = ROWS, validation: int = 16, **changes: Any) -> None:
    names = list(range(train))
    names = names[::-1] if changes.get("turned") else names
    texts = [changes.get("text", "picture number {}").format(name) for name in names]
    write_split(folder / "train", names, texts, changes.get("colour", 30))
    write_split(folder / "validation", list(range(validation)), [f"picture {row}" for row in range(validation)])


def chain_recipe(folder: Path) -> Recipe:
    data = {"source": str(folder / "pictures"), "caption_column": "text"}
    return tiny_recipe(
        folder / "runs", members=1, data=data, training__per_device_train_batch_size=8, training__save_steps=1
    )


OTHER_DATA = {
    "reordered": ({"turned": True}, "training data, train: the order of the rows differs"),
    "shortened": ({"train": ROWS - 1}, "training data, train: 39 rows instead of 40"),
    "lengthened": ({"train": ROWS + 1}, "training data, train: 41 rows instead of 40"),
    "other captions": ({"text": "image number {}"}, f"training data, train: {TEXTS}"),
    "other pixels": ({"colour": 31}, "training data, train: images differ"),
    "cut validation": ({"validation": 12}, "evaluation data, validation: 12 rows instead of 16"),
}


def test_a_chain_refuses_other_data_by_name_and_goes_on_with_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures, recipe = tmp_path / "pictures", chain_recipe(tmp_path)
    write_data(pictures)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, ChainTrainer, step=2)
        run(recipe)
    started = read_family(recipe.run_dir)
    assert {"train", "validation"} == started.data.keys() and started.data["train"]["rows"] == ROWS
    assert {"hf-chain", "torch", "transformers"} <= started.environment["versions"].keys()
    assert_other_data_are_refused(lambda: run(recipe), pictures, recipe.run_dir)
    write_data(pictures)  # written anew, but the same
    run(recipe)
    # Of the finished run too.
    assert_other_data_are_refused(lambda: run(recipe), pictures, recipe.run_dir)
    shutil.rmtree(pictures)
    run(recipe)
    assert "its data are not compared" in caplog.text and "nothing is left to do" in caplog.text


def assert_other_data_are_refused(again: Callable[[], object], pictures: Path, run_dir: Path) -> None:
    for changes, words in OTHER_DATA.values():
        write_data(pictures, **changes)
        with pytest.raises(HfChainError) as caught:
            again()
        message = str(caught.value)
        assert f"{run_dir} was begun with other {words}; restore it, choose another name" in message


def test_other_versions_are_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = chain_recipe(tmp_path)
    write_data(tmp_path / "pictures")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, ChainTrainer, step=1)
        run(recipe)
    begun = read_family(recipe.run_dir)
    version = begun.environment["versions"]["torch"]
    before = {"versions": {"torch": "1.0"}}
    Ledger(recipe.run_dir).append("run_started", recipe=begun.recipe, plan=begun.plan, environment=before)
    caplog.clear()
    run(recipe)
    assert f"goes on with torch {version} instead of 1.0: its weights may come out differently" in caplog.text


@pytest.mark.parametrize("streaming", [True, False])
def test_a_graft_refuses_other_conversations_other_pixels_and_other_models(streaming: bool, tmp_path: Path) -> None:
    stage = {"name": "only", "decoder": "surrogate", "parts": {"adapter": 1e-3}}
    values = streamed_graft_values(tmp_path, 32, [stage])
    values["training"]["save_steps"] = 1
    if not streaming:
        values["data"]["images"] |= {"streaming": False, "max_train_samples": None}
    recipe = GraftRecipe.model_validate(values)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, GraftTrainer, step=2)
        run_graft(recipe)
    train, content = tmp_path / "train.json", (tmp_path / "train.json").read_text()
    words = "files of .* bytes instead of" if streaming else TEXTS

    def refuses_other_words() -> None:
        train.write_text(content.replace("what is number", "what was number"))
        with pytest.raises(HfChainError, match=f"was begun with other training data, images/train: {words}"):
            run_graft(recipe)
        train.write_text(content)

    refuses_other_words()
    if not streaming:
        Image.new("RGB", (20, 16), "blue").save(tmp_path / "red.png")
        with pytest.raises(HfChainError, match="images/(train|validation): images differ"):
            run_graft(recipe)
        Image.new("RGB", (20, 16), "red").save(tmp_path / "red.png")
        for model in ("encoder", "target"):
            weights = next((tmp_path / model).glob("*.safetensors"))
            flip(weights)
            with pytest.raises(HfChainError, match=f"begun with another {model}: files in .*{model} have changed"):
                run_graft(recipe)
            flip(weights)
    run_graft(recipe)
    refuses_other_words()
