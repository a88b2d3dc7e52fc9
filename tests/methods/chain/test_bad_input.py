"""Wrong recipes: each is refused before anything is done, in one line with the name, the value and the remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_chain.commands.run import RunArguments
from hf_chain.methods.chain.recipe import parse_recipe
from support.changes import GONE, changed
from support.command_line import Command
from support.recipes import tiny_values, write_recipe


def with_changes(output_dir: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """A small recipe in which dotted places, members by number, have other values."""
    return changed(tiny_values(output_dir, members=2), changes)


WRONG_VALUES = [
    # Shapes
    (
        "width shrinks",
        {"members.1.vision.hidden_size": 8, "model.head_size": 8},
        "small.vision.hidden_size is 8, smaller",
    ),
    ("depth shrinks", {"members.0.text.num_hidden_layers": 3}, "small.text.num_hidden_layers is 1, smaller than 3"),
    ("MLP shrinks", {"members.1.vision.intermediate_size": 8}, "small.vision.intermediate_size is 8, smaller than 64"),
    ("embedding shrinks", {"members.1.projection_dim": 8}, "small.projection_dim is 8, smaller than 16"),
    ("width is no heads", {"members.0.vision.hidden_size": 20}, "tiny.vision.hidden_size is 20, .* multiple of .*16"),
    ("heads do not divide", {"members.0.text.num_attention_heads": 3}, "tiny.text.num_attention_heads is 3, .* 16"),
    ("heads shrink", {"members.1.vision.num_attention_heads": 8}, "small cannot grow from tiny: .* at most 2 heads"),
    (
        "patches do not fit",
        {"model.patch_size": 7},
        "model.image_size is 32, not a multiple of patch_size 7; choose 28",
    ),
    ("no activation", {"model.hidden_act": "gelux"}, "model.hidden_act is 'gelux'; use gelu"),
    ("context too short", {"model.max_text_tokens": 2}, "model.max_text_tokens is 2; .* greater than or equal to 3"),
    # Keys and types
    ("unknown operator", {"operator": "exakt"}, "operator is 'exakt'; .* 'exact', 'copy'"),
    ("misspelt key", {"modle": 3}, "modle is unknown; did you mean model"),
    (
        "misspelt key of a tower",
        {"members.0.vision.hiden_size": 3},
        "tiny.vision.hiden_size .* did you mean hidden_size",
    ),
    ("misspelt key of the data", {"data.image_colum": "x"}, "data.image_colum is unknown; did you mean image_column"),
    ("no model", {"model": GONE}, "model is missing; add it"),
    ("no epochs", {"members.0.epochs": GONE}, "members.tiny.epochs is missing; add it: Passes over"),
    ("text for a number", {"model.image_size": "big"}, "model.image_size is 'big'; .* integer"),
    ("list for a section", {"model": [1]}, r"model is \[1\]; write a mapping"),
    ("text for a list", {"data.test_splits": "test"}, "data.test_splits is 'test'; write a list"),
    ("number for a name", {"name": 12}, "name is 12; write a text"),
    ("nothing for a section", {"evaluation": None}, "evaluation is None; write a mapping"),
    # Members
    ("same name twice", {"members.1.name": "tiny"}, "members has 'tiny' twice"),
    ("name with a slash", {"members.0.name": "a/b"}, "name is 'a/b'; use letters"),
    ("run name with a slash", {"name": "../b"}, "name is '../b'; use letters"),
    ("no members", {"members": []}, r"members is \[\]; .* at least 1"),
    ("no epochs to train", {"members.0.epochs": 0}, "members.tiny.epochs is 0; .* greater than 0"),
    ("endless epochs", {"members.0.epochs": float("inf")}, "members.tiny.epochs is inf; .* finite"),
    ("less than an image", {"members.0.epochs": 0.001}, "tiny.epochs is 0.001, less than one of 256 samples"),
    ("no baseline", {"baseline_epochs": 0}, "baseline_epochs is 0; .* greater than 0"),
    ("NUL in a path", {"output_dir": "runs\0x"}, r"'runs\\x00x' holds a NUL.*: remove it"),
    ("more scenes than fit", {"data.scenes.train": 10**12}, "data.scenes.train is 10{12}; .* 10000000"),
    ("negative seed", {"seed": -1}, "seed is -1; .* greater than or equal to 0"),
    (
        "independent without the flag",
        {"independent": True, "members.0.training_alone": {"learning_rate": 1e-3}},
        "independent is true, which leaves training_alone unused; leave it out and run with --independent",
    ),
    ("independent and grown", {"independent": True, "predecessor": "me/clip"}, "leaves predecessor unused"),
    ("independent for longer", {"independent": True, "baseline_epochs": 9}, "leaves baseline_epochs unused"),
    # Training
    ("negative weight", {"training.feature_loss_weight": -1}, "training.feature_loss_weight is -1; .* not negative"),
    ("accumulation", {"training.gradient_accumulation_steps": 2}, "gradient_accumulation_steps=2 .* micro_batch_size"),
    ("micro-batch", {"training.micro_batch_size": 5}, "micro_batch_size=5 must divide per_device_train_batch_size=32"),
    ("micro-batch of a member", {"members.0.training": {"micro_batch_size": 5}}, "members.tiny.training.micro_batch"),
    ("no batch", {"training.per_device_train_batch_size": 0}, "per_device_train_batch_size is 0; .* above 0"),
    ("batch in quotes", {"training.per_device_train_batch_size": "32"}, "batch_size is '32'; .* integer"),
    ("epochs in training", {"training.num_train_epochs": 3}, "num_train_epochs is set by the runner; use `epochs`"),
    ("token in training", {"training.hub_token": "hf_x"}, "hub_token is set by the runner; set HF_TOKEN"),
    (
        "evaluation in training",
        {"training.eval_strategy": "epoch"},
        "eval_strategy is set by the runner; .* `evaluation`",
    ),
    (
        "unknown option",
        {"training.learning_rat": 1e-3},
        "training.learning_rat is unknown; did you mean learning_rate",
    ),
    ("text for a rate", {"training.learning_rate": "fast"}, "training.learning_rate is 'fast'; .* number"),
    ("negative rate", {"training.learning_rate": -1e-3}, "training.learning_rate is -0.001; .* not negative"),
    ("NaN for a rate", {"training.learning_rate": float("nan")}, "training.learning_rate is nan; .* not negative"),
    ("unknown weight schedule", {"training.feature_loss_schedule": "cos"}, "'cos' is unknown: .* linear, cosine"),
    ("unknown rate schedule", {"training.lr_scheduler_type": "cosinus"}, "lr_scheduler_type is 'cosinus'; .* cosine"),
    ("no tokens kept", {"training.image_token_keep": 0}, "image_token_keep=0 must be above 0"),
    ("no DeepSpeed file", {"training.deepspeed": "ds.json"}, "deepspeed is 'ds.json', which is no file"),
    # Numbers, and settings without effect
    ("true for a number", {"members.0.epochs": True}, "members.tiny.epochs is True; true and false are no numbers"),
    ("true for a size", {"model.image_size": True}, "model.image_size is True; true and false are no numbers"),
    ("false for a seed", {"seed": False}, "seed is False; true and false are no numbers"),
    ("true in a pair", {"data.augmentation": {"crop_scale": [True, 1]}}, "crop_scale is .*; true and false are no"),
    ("true for a rate", {"training.learning_rate": True}, "training.learning_rate is True; .* number"),
    ("seed too large", {"seed": 2**40}, "seed is 1099511627776; .* less than"),
    ("endless number", {"model.image_size": 10**400}, "model.image_size is above 9007199254740992; give a smaller"),
    ("images too large", {"model.image_size": 65_536}, "model.image_size is 65536; .* less than or equal to 8192"),
    ("name too long", {"members.0.name": "a" * 99}, "name is 'aaaaaaaaaaaaaaaaaaaa'…, 99 characters; use at most 64"),
    ("momentum of one", {"training.adam_beta1": 1.0}, "adam_beta1 is 1.0; it must be at least 0 and below 1"),
    (
        "negative momentum",
        {"members.0.training": {"adam_beta2": -0.1}},
        "tiny.training.adam_beta2 is -0.1; it",
    ),
    ("no epsilon", {"training.adam_epsilon": 0.0}, "adam_epsilon is 0.0; it must be above 0"),
    ("no checkpoint kept", {"training.save_total_limit": 0}, "save_total_limit is 0; it must be above 0"),
    ("steps and a half", {"training.save_steps": 2.5}, "save_steps is 2.5; give a whole number of steps"),
    ("warm-up and a half", {"training.warmup_steps": 2.5}, "warmup_steps is 2.5; give a whole number of steps"),
    ("negative workers", {"training.dataloader_num_workers": -1}, "dataloader_num_workers is -1; .* not negative"),
    ("no time to wait", {"training.ddp_timeout": 0}, "ddp_timeout is 0; it must be above 0"),
    (
        "smoothed labels",
        {"training.label_smoothing_factor": 0.1},
        "smoothing_factor is 0.1 and would do nothing",
    ),
    ("FSDP", {"training.fsdp": "full_shard"}, "training.fsdp is 'full_shard' and would do nothing: .*DeepSpeed"),
    ("batch that shrinks", {"training.auto_find_batch_size": True}, "auto_find_batch_size is True and would do"),
    ("hidden NaN", {"training.logging_nan_inf_filter": True}, "logging_nan_inf_filter is True and would do"),
    ("liger", {"training.use_liger_kernel": True}, "use_liger_kernel is True and would do nothing: it has no kernels"),
    ("unknown sampler", {"training.train_sampling_strategy": "sorted"}, "is 'sorted'; use one of random, sequential"),
    ("sampler by length", {"training.train_sampling_strategy": "group_by_length"}, "all captions are padded to one"),
    ("unknown log level", {"training.log_level": "loud"}, "log_level is 'loud'; use one of debug, info"),
    ("best checkpoint", {"training.save_strategy": "best"}, "save_strategy is 'best'; use one of no, steps, epoch"),
    (
        "JIT checkpoint",
        {"training.enable_jit_checkpoint": True},
        "jit_checkpoint is set by the runner; SIGTERM",
    ),
    ("evaluation batch", {"training.per_device_eval_batch_size": 4}, "is set by the runner; .* see `evaluation`"),
    ("Hub in training", {"training.hub_model_id": "a/b"}, "hub_model_id is set by the runner; use the section `hub`"),
    ("do_train", {"training.do_train": True}, "do_train is set by the runner; use `hf-chain run`"),
    (
        "steps of another strategy",
        {"training.save_strategy": "epoch"},
        "training.save_steps is 3 and would do nothing: it needs save_strategy: steps",
    ),
    (
        "warm-up of a constant rate",
        {"members.0.training": {"lr_scheduler_type": "constant", "warmup_steps": 5}},
        "tiny.training.warmup_steps is 5 and would do nothing: it needs another lr_scheduler_type",
    ),
    (
        "workers that persist alone",
        {"training.dataloader_persistent_workers": True},
        "dataloader_persistent_workers is True and would do nothing: it needs dataloader_num_workers above 0",
    ),
    (
        "tail of no mask",
        {"training.unmasked_tail": 0.5},
        "unmasked_tail is 0.5 .* it needs image_token_keep",
    ),
    ("trackio alone", {"training.trackio_space_id": "a/b"}, "trackio_space_id is .* it needs report_to: trackio"),
    ("number for a folder", {"training.logging_dir": 3}, "training.logging_dir is 3; give the folder that trackers"),
    # Data, evaluation and Hub
    (
        "name that no repository has",
        {"hub": {"push": True, "prefix": "me/scenes"}, "members.0.name": "a--b"},
        "members.a--b.name: 'me/scenes-a--b' is no repository name",
    ),
    ("views without augmentation", {"data.image_views": 3}, "data.image_views is 3 without augmentation; set it to 0"),
    (
        "crop upside down",
        {"data.augmentation": {"crop_scale": [0.9, 0.1]}},
        r"crop_scale is \[0.9, 0.1\]; .* min <= max",
    ),
    ("template without name", {"data.prompt_templates": ["a photo"]}, "'a photo'; a template needs exactly one {}"),
    ("stream of scenes", {"data.streaming": True}, "data.streaming is true for source 'scenes'"),
    (
        "stream without length",
        {"data": {"source": "x/y", "caption_column": "t", "streaming": True}},
        "samples_per_epoch",
    ),
    (
        "unknown split",
        {"evaluation": {"splits": ["validaton"]}},
        r"'validaton'; use train, validation .*compositional",
    ),
    (
        "views that cannot be cached",
        {"cache_teacher_features": True, "data.augmentation": {"horizontal_flip": True}},
        "set data.image_views",
    ),
    ("push to nowhere", {"hub": {"push": True}}, "hub.prefix: needed to push; .* user/scenes"),
    (
        "malformed prefix",
        {"hub": {"push": True, "prefix": "a b"}},
        "hub.prefix: 'a b' is no repository name; write user",
    ),
]


@pytest.mark.parametrize(("changes", "words"), [pytest.param(*case[1:], id=case[0]) for case in WRONG_VALUES])
def test_a_wrong_value_is_named_with_its_remedy(
    changes: dict[str, Any],
    words: str,
    hf_chain: Command,
    tmp_path: Path,
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", with_changes(tmp_path / "runs", changes))
    outcome = hf_chain("plan", recipe)
    assert re.search(words, outcome.message)
    assert len(outcome.err.splitlines()) == 1 and outcome.status == 1
    assert not (tmp_path / "runs").exists()


NO_RECIPES = [
    ("empty", b"", "is empty: start with `name:`"),
    ("list", b"- a\n- b\n", "holds list, not a mapping"),
    ("nested too deeply", b"a: " + b"[" * 3000 + b"]" * 3000, "nested too deeply to be read: write"),
    ("sentence", b"train something small", "holds str, not a mapping"),
    ("bracket left open", b"name: [a\nb: }", "no valid YAML at line 2"),
    ("tabs", b"name: a\n\tb: c", "no valid YAML at line 2"),
    ("key twice", b"name: a\nseed: 1\nname: b\n", "at line 3, 'name' stands there twice"),
    ("Python object", b"name: !!python/object/apply:os.getcwd []", "no valid YAML at line 1"),
    ("binary", bytes(range(256)), "it is no text in UTF-8.*give the path of a YAML file"),
]


@pytest.mark.parametrize(("content", "words"), [pytest.param(*case[1:], id=case[0]) for case in NO_RECIPES])
def test_a_file_that_is_no_recipe_is_refused(
    content: bytes,
    words: str,
    hf_chain: Command,
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_bytes(content)
    message = hf_chain("plan", recipe).message
    assert re.search(words, message)
    assert str(recipe) in message


@pytest.mark.parametrize(("name", "words"), [("none.yaml", "No such file"), ("", "Is a directory")])
def test_a_recipe_that_cannot_be_opened_is_named(
    name: str,
    words: str,
    hf_chain: Command,
    tmp_path: Path,
) -> None:
    message = hf_chain("run", tmp_path / name).message
    assert words in message and str(tmp_path / name) in message and "give the path" in message


OVERRIDES = [
    ("seed", "'seed' has no '='"),
    ("..=1", "'..=1' has a name that is empty: write section.field=value"),
    ("members..epochs=1", "'members..epochs=1' has a name that is empty"),
    ("members.huge.epochs=2", "there is no 'huge' in the recipe"),
    ("name.first=2", "there is no 'name' in the recipe"),
    ("seed=[1", "'seed=\\[1' is no valid YAML"),
    ("sed=1", "sed is unknown; did you mean seed"),
]


@pytest.mark.parametrize(("override", "words"), OVERRIDES)
def test_a_wrong_override_is_refused(
    override: str,
    words: str,
    hf_chain: Command,
    tmp_path: Path,
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_values(tmp_path / "runs"))
    assert re.search(words, hf_chain("plan", recipe, "--set", override).message)


COMMAND_LINES = [
    (["trian"], "No such command 'trian'"),
    (["run"], "Missing argument 'recipe'"),
    (["run", "recipe.yaml", "--outputdir", "x"], "No such option: --outputdir .*--output-dir"),
    (["run", "recipe.yaml", "--seed", "one"], "Invalid value for '--seed'"),
    (["grow", "model", "out", "--vision-width", "0"], "Invalid value for '--vision-width'"),
]


@pytest.mark.parametrize(("arguments", "words"), COMMAND_LINES)
def test_a_wrong_command_line_is_one_line(
    arguments: list[str],
    words: str,
    hf_chain: Command,
) -> None:
    outcome = hf_chain(*arguments)
    assert re.search(words, outcome.message)
    assert outcome.status == 2 and len(outcome.err.splitlines()) == 1 and "--help" in outcome.message


def test_exponents_are_numbers_as_people_write_them(tmp_path: Path) -> None:
    text = yaml.safe_dump(tiny_values(tmp_path)).replace("learning_rate: 0.001", "learning_rate: 1e-3")
    assert "learning_rate: 1e-3" in text
    assert parse_recipe(text).training["learning_rate"] == 1e-3


def test_a_folder_given_as_a_flag_is_a_text_whatever_it_looks_like(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_values(tmp_path))
    for folder in ("2024", "a: b", "null"):
        assert RunArguments(str(recipe), output_dir=folder).recipe().output_dir == folder
