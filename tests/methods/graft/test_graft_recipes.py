"""Recipes of grafts: those that come with hf_chain, and the flags of the example over them."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from transformers import HfArgumentParser

from hf_chain.commands.run import GraftArguments, RunArguments
from hf_chain.data.chat.settings import ChatDataSettings
from hf_chain.errors import HfChainError
from hf_chain.grafting.ranges import check_ranges, kept_layers, parse_ranges
from hf_chain.methods.chain.recipe import Recipe, load_recipe
from hf_chain.methods.graft.recipe import GraftRecipe, load_graft_recipe
from support.graft_recipes import tiny_graft_values
from support.recipes import REPOSITORY, write_recipe

RECIPES = REPOSITORY / "examples" / "recipes"
SCENES = str(RECIPES / "graft_scenes.yaml")
PUBLISHED = {
    # Layers of the target, layers that are left (arXiv 2505.22664), devices that the batches are meant for.
    "llama3.2_3b": (28, 18, 8),
    "llama3.1_8b": (32, 19, 8),
    "llama3.1_70b": (80, 42, 64),
    "qwen3_4b": (36, 24, 8),
    "gemma3_12b": (48, 28, 8),
}


def batch(recipe: GraftRecipe, number: int, devices: int) -> int:
    """Global batch of a stage."""
    training = recipe.training_of(recipe.stages[number])
    return training["per_device_train_batch_size"] * training["gradient_accumulation_steps"] * devices


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_stages_are_in_the_recipes(name: str) -> None:
    layers, kept, devices = PUBLISHED[name]
    recipe = load_graft_recipe(RECIPES / f"graft_{name}.yaml")
    ranges = check_ranges(parse_ranges(recipe.surrogate.replaced), layers)
    assert len(kept_layers(ranges, layers)) == kept
    translator, encoder, graft, decoder = recipe.stages
    assert set(translator.parts.values()) == {1e-4} and set(encoder.parts.values()) == {5e-5}
    assert {"adapter", "image_tokens", "translator", "encoder.post_layernorm"} == set(translator.parts)
    assert {"adapter", "encoder.last:8"} == set(encoder.parts) and graft.parts == {}
    assert [batch(recipe, number, devices) for number in (0, 1, 3)] == [256, 128, 128]
    assert translator.data == ["images", "text"] and encoder.data == ["images"]
    assert decoder.epochs == 0.2 and decoder.parts == {"encoder.last:8": 5e-5, "decoder": 5e-5}
    assert recipe.data["text"].max_train_samples == 500_000
    assert [stage.special_tokens_in_loss for stage in (translator, encoder, decoder)] == [True, True, False]
    assert recipe.encoder.name_or_path == "openai/clip-vit-large-patch14-336"
    assert recipe.max_length == 4096 and recipe.image_prompts and recipe.baseline


def test_flags_of_the_examples_may_be_repeated() -> None:
    flags = ["--config", SCENES, "--set", "name=one", "data.text.scenes.train=64", "--set", "seed=3"]
    (arguments,) = HfArgumentParser(RunArguments).parse_args_into_dataclasses(flags)
    recipe = arguments.recipe()
    assert (recipe.name, recipe.seed, recipe.data["text"].scenes.train) == ("one", 3, 64)


def test_the_embedded_default_finds_its_chain_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_graft_recipe(SCENES)
    assert load_recipe(recipe.chain_path).name == "scenes-encoder-short"
    assert recipe.encoder.chain == "scenes_encoder_short.yaml", "the ledger must not depend on where the clone is"
    assert [stage.decoder for stage in recipe.stages] == ["surrogate", "target", "target"]


def test_a_chain_may_be_named_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.yaml").write_text("name: own")
    monkeypatch.chdir(tmp_path)
    assert load_graft_recipe(SCENES, ["encoder.chain=own.yaml"]).chain_path == Path("own.yaml")


def test_run_knows_both_kinds_of_recipes(tmp_path: Path) -> None:
    assert isinstance(RunArguments(SCENES, seed=3).recipe(), GraftRecipe)
    assert isinstance(RunArguments(str(RECIPES / "scenes.yaml")).recipe(), Recipe)


def test_flags_of_the_example_replace_parts_of_the_recipe() -> None:
    flags = GraftArguments(
        SCENES,
        ["surrogate.translator=[inherit]"],
        target="me/model",
        encoder="me/encoder",
        dataset="mix.json",
        output_dir="2024",
    )
    recipe = flags.recipe()
    assert recipe.target.name_or_path == "me/model" and recipe.target.new is None
    assert recipe.encoder.name_or_path == "me/encoder" and recipe.encoder.chain is None
    assert (recipe.surrogate.replaced, recipe.surrogate.translator) == ("two_segment", ["inherit"])
    splits = {"train_split": "train[:98%]", "validation_split": "train[98%:]"}
    assert recipe.data == {"images": ChatDataSettings(source="mix.json", **splits)}
    assert all(stage.data == ["images"] for stage in (*recipe.stages, *recipe.baseline))
    assert recipe.evaluation.splits == ["validation"]
    assert recipe.evaluation.data == ["images"] and recipe.surrogate.calibration.data is None
    assert recipe.output_dir == "2024"


def test_a_dataset_needs_a_target_that_is_there() -> None:
    with pytest.raises(HfChainError, match="graft_scenes.yaml trains its own target on other data: give --target too"):
        GraftArguments(SCENES, dataset="mix.json").recipe()


def test_a_dataset_on_a_stage_without_a_name_is_refused_in_one_line(tmp_path: Path) -> None:
    values = tiny_graft_values(tmp_path, target={"name_or_path": "me/model"})
    del values["stages"][0]["name"]
    recipe = write_recipe(tmp_path / "recipe.yaml", values)
    with pytest.raises(HfChainError, match="stages.0.name is missing; add it: Name of the stage"):
        GraftArguments(str(recipe), dataset="mix.json").recipe()


def test_the_rate_of_a_part_can_be_set_although_its_name_has_a_dot(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_graft_values(tmp_path))
    flags = ["stages.encoder.parts.encoder.last:1=2e-4", "stages.encoder.parts.adapter=null"]
    found = RunArguments(str(recipe), flags).recipe()
    assert isinstance(found, GraftRecipe)
    assert found.stages[0].parts == {"adapter": None, "image_tokens": 1e-3, "encoder.last:1": 2e-4}


def test_a_section_that_is_named_and_empty_can_be_filled_by_flags(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_graft_values(tmp_path) | {"hub": None})
    assert RunArguments(str(recipe), push_to_hub=True, hub_prefix="me/x").recipe().hub.prefix == "me/x"


def test_a_misspelt_target_is_told_in_the_words_of_a_graft(tmp_path: Path) -> None:
    values = tiny_graft_values(tmp_path)
    values["targets"] = values.pop("target")
    with pytest.raises(HfChainError, match="target is missing; add it: The language model"):
        RunArguments(str(write_recipe(tmp_path / "recipe.yaml", values))).recipe()


def test_paths_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    source = {"source": "~/mix.json", "image_folder": "~/images", "data_files": {"train": ["~/mix.json"]}}
    values = tiny_graft_values(tmp_path, output_dir="~/runs", target={"name_or_path": "~/llm"}, data__images=source)
    recipe = load_graft_recipe(write_recipe(tmp_path / "recipe.yaml", values))
    assert recipe.run_dir == tmp_path / "runs" / "tiny" and recipe.target.name_or_path == str(tmp_path / "llm")
    data = recipe.data["images"]
    assert (data.source, data.image_folder) == (str(tmp_path / "mix.json"), str(tmp_path / "images"))
    assert data.data_files == {"train": [str(tmp_path / "mix.json")]}


def test_a_cut_that_is_set_stays_with_another_target() -> None:
    flags = GraftArguments(str(RECIPES / "graft_llama3.2_3b.yaml"), ["surrogate.replaced=9-14"], target="me/model")
    assert flags.recipe().surrogate.replaced == "9-14"
    assert GraftArguments(flags.config, target="me/model").recipe().surrogate.replaced == "two_segment"
    assert GraftArguments(flags.config, encoder="chain.yaml").recipe().encoder.chain == "chain.yaml"


def test_the_recipe_in_a_folder_is_the_recipe(tmp_path: Path) -> None:
    recipe = load_graft_recipe(write_recipe(tmp_path / "recipe.yaml", tiny_graft_values(tmp_path)))
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_graft_recipe(tmp_path / "again.yaml").model_dump() == recipe.model_dump()


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "graft-scenes"),
        (["--config", str(RECIPES / "graft_qwen3_4b.yaml")], "graft-qwen3-4b"),
        (["--target", "me/model", "--dataset", "mix.json"], "graft-llama3.2-3b"),
        (["--set", "name=mine", "seed=4", "--output_dir", "out"], "mine"),
    ],
)
def test_the_example_takes_the_recipe_that_fits_its_flags(
    flags: list[str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[GraftArguments] = []
    monkeypatch.setattr("hf_chain.commands.run.launch", run.append)
    monkeypatch.setattr(sys, "argv", ["graft_vlm.py", *flags])
    runpy.run_path(str(REPOSITORY / "examples" / "graft_vlm.py"), run_name="__main__")
    (arguments,) = run
    recipe = arguments.recipe()
    assert recipe.name == name
    assert recipe.target.name_or_path == (arguments.target or recipe.target.name_or_path)


def test_the_help_of_the_example_names_its_flags(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["graft_vlm.py", "--help"])
    with pytest.raises(SystemExit) as leaving:
        runpy.run_path(str(REPOSITORY / "examples" / "graft_vlm.py"), run_name="__main__")
    assert not leaving.value.code
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--target", "--encoder", "--dataset", "--config", "--set"))


def test_a_recipe_is_itself_again_from_all_its_values() -> None:
    recipe = load_graft_recipe(SCENES)
    assert recipe.surrogate.budget is not None
    assert type(recipe).model_validate(recipe.model_dump(mode="json")).model_dump() == recipe.model_dump()
