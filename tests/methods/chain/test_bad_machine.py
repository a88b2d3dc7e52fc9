"""What fails on the machine: disks, folders, the network, models of others, damaged runs, a loss that explodes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel

from hf_chain.runs.training_run import last_whole_checkpoint
from support.command_line import Command, finished, start_hf_chain
from support.recipes import tiny_values, write_recipe


def recipe_for(tmp_path: Path, **changes: Any) -> Path:
    """A recipe of one member whose runs are in `tmp_path / "runs"`."""
    return write_recipe(tmp_path / "recipe.yaml", tiny_values(tmp_path / "runs", members=1, **changes))


# Folders and disks


@pytest.mark.parametrize("place", ["file", "file/inside", "/proc/runs"])
def test_a_run_folder_that_cannot_be_made_is_refused(place: str, hf_chain: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    message = hf_chain("run", recipe_for(tmp_path), "--output-dir", tmp_path / place).message
    assert re.search(f"{place}/tiny cannot be written .*: choose another output_dir", message)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own, of so many bytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("small_disk", ["100k"], indirect=True)
def test_a_disk_that_is_too_small_is_refused_at_once(small_disk: Path, hf_chain: Command, tmp_path: Path) -> None:
    message = hf_chain("run", recipe_for(tmp_path), "--output-dir", small_disk).message
    assert re.search("tiny needs about .*B and the disk has 102KB free: free some or choose another", message)
    assert not list(small_disk.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("small_disk", ["4m"], indirect=True)
def test_a_disk_that_fills_up_leaves_no_half_written_checkpoint(small_disk: Path, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, training__save_steps=1, training__save_total_limit=50)
    process = start_hf_chain("run", recipe, "--output-dir", small_disk, "--set", "members.tiny.epochs=20")
    assert "the disk is full" in finished(process).message
    checkpoints = list((small_disk / "tiny" / "checkpoints" / "01-tiny").iterdir())
    assert checkpoints and all((checkpoint / "trainer_state.json").exists() for checkpoint in checkpoints)
    assert not (small_disk / "tiny" / "01-tiny").exists()


# Training


def test_a_loss_that_explodes_stops_the_run_without_a_member(hf_chain: Command, tmp_path: Path) -> None:
    changes = {"training__learning_rate": 1e9, "training__save_steps": 1, "data__test_splits": []}
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert re.search("The loss is nan at step [0-9]+: lower the learning rate", message)
    run = tmp_path / "runs" / "tiny"
    assert {path.name for path in run.iterdir()} == {
        ".lock",
        ".ledger.lock",
        "ledger.jsonl",
        "processor",
        "checkpoints",
    }
    assert not list(run.rglob(".*partial"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (signal.SIGINT, 130, "interrupted; the same command goes on from the last checkpoint"),
        (
            signal.SIGTERM,
            143,
            r"SIGTERM at step \d+: saved a checkpoint in .*/01-tiny; the same command goes on from it",
        ),
    ],
)
def test_an_interrupted_run_says_how_it_goes_on(
    number: signal.Signals, status: int, words: str, tmp_path: Path
) -> None:
    recipe = recipe_for(tmp_path, training__save_steps=5)
    process = start_hf_chain("run", recipe, "--set", "members.tiny.epochs=2000")
    checkpoints, deadline = tmp_path / "runs" / "tiny" / "checkpoints" / "01-tiny", time.monotonic() + 400
    while not list(checkpoints.glob("checkpoint-*/manifest.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    outcome = finished(process)
    assert outcome.status == status
    assert re.fullmatch(words, outcome.message)
    if number == signal.SIGTERM:
        step = re.findall(r"\d+", outcome.message)[0]
        assert last_whole_checkpoint(checkpoints) == checkpoints / f"checkpoint-{step}"


def test_a_kernel_that_is_not_there_is_refused_before_the_data_is_read(hf_chain: Command, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, model__attn_implementation="fastest")
    assert "model.attn_implementation is 'fastest', which does not work here" in hf_chain("run", recipe).message
    assert not (tmp_path / "runs").exists()


def test_a_tracker_that_is_not_installed_is_refused_before_the_data_is_read(hf_chain: Command, tmp_path: Path) -> None:
    message = hf_chain("run", recipe_for(tmp_path, training__report_to="wandbb")).message
    assert re.search("members.tiny.training: report_to has 'wandbb', .*: install it or use one of none", message)
    assert not (tmp_path / "runs").exists()


LAST_MEMBER = [
    ({"optim": "adamw_bnb_8bit"}, "optim 'adamw_bnb_8bit' does not work here: You need to install `bitsandbytes`"),
    ({"lr_scheduler_type": "cosine_with_min_lr"}, "'cosine_with_min_lr' does not work here: One of min_lr"),
    ({"report_to": "wandbb"}, "report_to has 'wandbb'"),
    ({"deepspeed": {"train_batch_size": 7}}, "contradicts training: - ds train_batch_size=7"),
    ({"per_device_train_batch_size": 1}, "the global batch is 1 image, .*: set .* to 2 or more"),
]


@pytest.mark.parametrize(("training", "words"), LAST_MEMBER)
def test_what_the_last_member_needs_is_tried_before_the_data_is_read(
    training: dict[str, Any], words: str, hf_chain: Command, tmp_path: Path
) -> None:
    values = tiny_values(tmp_path / "runs", members=3)
    values["members"][2]["training"] = training
    message = hf_chain("run", write_recipe(tmp_path / "recipe.yaml", values)).message
    assert re.search(f"^members.base(.training)?: .*{words}", message)
    assert not (tmp_path / "runs").exists()


# Runs that are there already


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """The ledger of a run that was begun with the present recipe and seed 7."""
    from hf_chain.methods.chain.recipe import load_recipe
    from hf_chain.runs.ledger import Ledger

    recipe = load_recipe(recipe_for(tmp_path), ["seed=7"])
    ledger = Ledger(recipe.run_dir)
    ledger.append("run_started", recipe=recipe.model_dump(mode="json"), plan={"members": []}, environment={})
    return ledger.path


def test_another_recipe_does_not_go_on_with_a_run(ledger: Path, hf_chain: Command, tmp_path: Path) -> None:
    before = ledger.read_bytes()
    message = hf_chain("run", recipe_for(tmp_path)).message
    assert re.search("was begun with seed=7, the recipe now says 0: restore it, choose another name, or", message)
    assert ledger.read_bytes() == before


@pytest.mark.parametrize("command", ["run", "report", "push"])
def test_a_ledger_that_says_nothing_any_more_is_refused(
    command: str, ledger: Path, hf_chain: Command, tmp_path: Path
) -> None:
    ledger.write_bytes(bytes(ledger.stat().st_size))
    message = hf_chain(command, recipe_for(tmp_path) if command == "run" else ledger.parent).message
    assert re.search("ledger.jsonl is damaged: no line of it says any more what was run .*remove the folder", message)


def test_damaged_lines_of_a_ledger_do_not_keep_its_report_from_being_written(
    ledger: Path, hf_chain: Command, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.write_bytes(ledger.read_bytes() + b'{"loss": 3}\n' + bytes(range(9)) + b"\n")
    assert hf_chain("report", ledger.parent).status == 0
    assert "skipped 2 damaged lines (line 2, 3: it is no event)" in caplog.text


def test_a_plan_that_is_none_is_one_line(ledger: Path, hf_chain: Command) -> None:
    (line,) = ledger.read_text().splitlines()
    entry = {name: value for name, value in json.loads(line).items() if name != "check"}
    ledger.write_text(json.dumps(entry | {"plan": {"members": [{"name": 3}]}}) + "\n")
    assert "cannot be made of what its ledger says (KeyError" in hf_chain("report", ledger.parent).message


def test_a_folder_in_the_place_of_a_file_is_one_line(ledger: Path, hf_chain: Command, tmp_path: Path) -> None:
    ledger.unlink()
    ledger.mkdir()
    message = hf_chain("push", ledger.parent).message
    assert f"something else is in the place of {ledger} (Is a directory): remove it" in message


@pytest.mark.parametrize("place", ["report", "report/index.html", "report/family.csv"])
def test_a_report_that_cannot_be_written_is_one_line(place: str, ledger: Path, hf_chain: Command) -> None:
    if place == "report":
        (ledger.parent / place).write_text("in the way")
    else:
        (ledger.parent / place).mkdir(parents=True)
    message = hf_chain("report", ledger.parent).message
    assert re.search(r"the report of .* cannot be written \(.*: .*report.*\): make room", message)


@pytest.mark.parametrize("command", ["report", "push"])
def test_a_folder_that_is_no_run_is_refused(command: str, hf_chain: Command, tmp_path: Path) -> None:
    assert f"No ledger.jsonl in {tmp_path / 'none'}: give the folder" in hf_chain(command, tmp_path / "none").message


@pytest.mark.parametrize(
    ("options", "words"), [([], "hub.prefix: needed to push"), (["--prefix", "a b"], "'a b' is no")]
)
def test_a_push_to_no_proper_place_is_refused(options: list[str], words: str, ledger: Path, hf_chain: Command) -> None:
    assert words in hf_chain("push", ledger.parent, *options).message


# Models of others


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A tiny CLIP without a processor."""
    tower = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    tower["hidden_act"] = "gelu"
    text = tower | {"vocab_size": 600, "max_position_embeddings": 40, "bos_token_id": 598, "eos_token_id": 599}
    vision = tower | {"image_size": 32, "patch_size": 16}
    config = CLIPConfig(vision_config=vision, text_config=text | {"pad_token_id": 599}, projection_dim=16)
    CLIPModel(config).save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A model that is no CLIP."""
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16, vocab_size=9)
    BertModel(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def predecessor_message(hf_chain: Command, tmp_path: Path, predecessor: Path, **changes: Any) -> str:
    """What a run says that is to grow from `predecessor` and to use its tokenizer."""
    recipe = recipe_for(
        tmp_path, predecessor=str(predecessor), **{"tokenizer__name_or_path": str(predecessor)} | changes
    )
    message = hf_chain("run", recipe).message
    assert not list((tmp_path / "runs").rglob("01-*"))
    return message


def test_a_predecessor_that_is_no_clip_is_refused(hf_chain: Command, tmp_path: Path, bert: Path) -> None:
    assert f"{bert} is a bert model, no clip model" in predecessor_message(hf_chain, tmp_path, bert)


def test_a_predecessor_that_is_not_there_is_refused(hf_chain: Command, tmp_path: Path) -> None:
    message = predecessor_message(hf_chain, tmp_path, tmp_path / "none")
    assert message == f"There is no folder {tmp_path / 'none'}: give that of a CLIP model, or a Hub name"


def test_a_predecessor_without_its_tokenizer_is_refused(hf_chain: Command, tmp_path: Path, clip: Path) -> None:
    message = predecessor_message(hf_chain, tmp_path, clip, tokenizer__name_or_path=None)
    assert "has a vocabulary of its own: set tokenizer.name_or_path to" in message


def test_a_predecessor_of_another_shape_is_refused(hf_chain: Command, tmp_path: Path, clip: Path) -> None:
    message = predecessor_message(hf_chain, tmp_path, clip, model__patch_size=8)
    assert re.search(
        "members.tiny cannot grow from predecessor .*patch_size=8 differs from the predecessor's 16", message
    )


def test_a_tokenizer_that_is_not_there_is_refused(hf_chain: Command, tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, tokenizer__name_or_path=str(tmp_path / "none"))
    message = hf_chain("run", recipe).message
    assert re.search(f"tokenizer {tmp_path / 'none'} cannot be loaded, .*; give a folder or a Hub name", message)
    assert not (tmp_path / "runs").exists()


def test_a_tokenizer_of_another_vocabulary_is_refused(hf_chain: Command, tmp_path: Path, grown_from: Path) -> None:
    message = predecessor_message(hf_chain, tmp_path, grown_from)
    assert re.search("has 514 tokens, but predecessor .* knows 600: give the predecessor's own tokenizer", message)


@pytest.mark.parametrize("damage", ["config", "no weights", "half the weights", "missing weights", "pickle"])
def test_a_model_folder_that_is_damaged_is_refused(damage: str, hf_chain: Command, tmp_path: Path, clip: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    weights = clip / "model.safetensors"
    if damage == "config":
        (clip / "config.json").write_text("{")
    elif damage == "half the weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "missing weights":
        save_file({n: w for n, w in load_file(weights).items() if "projection" not in n}, weights, {"format": "pt"})
    else:
        if damage == "pickle":
            torch.save(load_file(weights), clip / "pytorch_model.bin")
        weights.unlink()
    message = hf_chain("eval", clip, "--recipe", recipe_for(tmp_path)).message
    assert str(clip) in message and (
        "cannot be loaded" in message or "lacks text_projection.weight and 1 more weights" in message
    )


def test_a_model_that_is_no_clip_is_not_evaluated(hf_chain: Command, tmp_path: Path, bert: Path) -> None:
    assert "no clip model" in hf_chain("eval", bert, "--recipe", recipe_for(tmp_path)).message
    assert "There is no folder" in hf_chain("eval", tmp_path / "none", "--recipe", recipe_for(tmp_path)).message


@pytest.mark.slow
def test_names_of_the_hub_fail_in_one_line_without_network(tmp_path: Path) -> None:
    cases = {
        "data": ({"data": {"source": "nobody/none", "caption_column": "text"}}, "of nobody/none cannot be loaded"),
        "tokenizer": ({"tokenizer__name_or_path": "nobody/none"}, "tokenizer nobody/none cannot be loaded"),
        "predecessor": (
            {"predecessor": "nobody/none", "tokenizer__name_or_path": "nobody/none"},
            r"nobody/none cannot be loaded \(.*\): give the folder or the Hub name",
        ),
    }
    for name, (changes, words) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        process = start_hf_chain("run", recipe_for(folder, **changes))
        assert re.search(words, finished(process).message)
        assert not list(folder.rglob("01-*"))


# Growing


GROWTHS = [
    ([], "no size is given to grow"),
    (["--seed", "3"], "no size is given to grow"),
    (["--vision-width", "16", "--embedding", "16"], "has the given sizes already, so nothing would grow"),
    (["--vision-width", "8"], "vision_config.hidden_size=8 is not a multiple of the head size 16: choose 16"),
    (["--embedding", "8"], "projection_dim=8 is smaller than the predecessor's 16: use 16 or more"),
    (["--vision-width", "40"], "vision_config.hidden_size=40 is not a multiple of the head size 16: choose 48"),
    (["--vision-width", "32", "--operator", "exakt"], "operator 'exakt' is unknown: use one of exact, copy"),
]


@pytest.mark.parametrize(("options", "words"), GROWTHS)
def test_a_growth_that_cannot_be_is_refused(
    options: list[str], words: str, grown_from: Path, hf_chain: Command, tmp_path: Path
) -> None:
    assert words in hf_chain("grow", grown_from, tmp_path / "grown", *options).message
    assert not (tmp_path / "grown").exists()


def test_growing_overwrites_nothing(grown_from: Path, hf_chain: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for place in (tmp_path, grown_from, tmp_path / "thesis.txt"):
        assert f"{place} exists already" in hf_chain("grow", grown_from, place, "--vision-width", "32").message
    message = hf_chain("grow", grown_from, tmp_path / "thesis.txt" / "grown", "--vision-width", "32").message
    assert "cannot be made" in message
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.fixture
def grown_from(clip: Path) -> Path:
    """A tiny CLIP with a processor."""
    from hf_chain.data import build_processor, train_tokenizer

    build_processor(train_tokenizer(["a red circle"], 514), 32).save_pretrained(clip)
    assert json.loads((clip / "config.json").read_text())["model_type"] == "clip"
    return clip
