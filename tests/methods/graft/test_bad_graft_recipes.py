"""Wrong recipes of grafts, and data that cannot be used: one line or a counted report, before anything is trained."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPImageProcessorPil

from hf_chain.methods.graft.recipe import load_graft_recipe
from hf_chain.runs.ledger import Ledger, read_family
from hf_chain.runs.resume import check_same_recipe
from support.command_line import Command
from support.graft_recipes import tiny_graft_values, write_target
from support.grafted_parts import image_processor, tiny_tower
from support.recipes import write_recipe

ENCODER: dict[str, Any] = {"name": "encoder", "decoder": "surrogate", "parts": {"adapter": 1e-3}}
REFIT: dict[str, Any] = {"name": "translator", "decoder": "surrogate", "refit": 16}
GRAFT: dict[str, Any] = {"name": "graft", "decoder": "target"}


def recipe_for(folder: Path, **changes: Any) -> Path:
    """The tiny recipe with other values."""
    return write_recipe(folder / "recipe.yaml", tiny_graft_values(folder, **changes))


def training(**fields: Any) -> dict[str, Any]:
    return {"stages": [{**ENCODER, "training": fields}, GRAFT]}


WRONG_VALUES: list[tuple[str, dict[str, Any], str]] = [
    # Stages
    ("unknown place", {"stages__0__decoder": "teacher"}, "stages.encoder.decoder is 'teacher'; .* 'surrogate' or"),
    ("back to the surrogate", {"stages": [GRAFT, ENCODER]}, "stages goes back from the target to the surrogate; put"),
    ("no stages", {"stages": []}, r"stages is \[\]; .* at least 1"),
    ("a name twice", {"stages__1__name": "encoder"}, "stages and baseline have 'encoder' twice"),
    ("a reserved name", {"stages__0__name": "surrogate"}, "have 'surrogate' twice, or it is one of target, surrogate"),
    ("a name with a slash", {"stages__0__name": "../up"}, "name is '../up'; use letters"),
    ("a baseline on the surrogate", {"baseline__0__decoder": "surrogate"}, "baseline.full.decoder is 'surrogate'; it"),
    ("no epochs", {"stages__0__epochs": 0}, "stages.encoder.epochs is 0; .* greater than 0"),
    (
        "a refit before an adapter",
        {"stages": [{**REFIT}, ENCODER]},
        "translator.refit needs the surrogate, and before",
    ),
    ("a refit of the target", {"stages": [GRAFT, {**REFIT, "decoder": "target"}]}, "translator.refit needs the surro"),
    (
        "a refit in the baseline",
        {"baseline": [{**REFIT, "decoder": "target"}]},
        "translator.refit needs the surrogate",
    ),
    (
        "a refit that trains",
        {"stages": [ENCODER, {**REFIT, "parts": {"adapter": 1}}]},
        "translator has refit and parts",
    ),
    ("a refit on too little", {"stages": [ENCODER, {**REFIT, "refit": 4}]}, "translator.refit is 4; .* 5"),
    (
        "a larger surrogate whose translator is not fitted",
        {"stages": [ENCODER, {**ENCODER, "name": "larger", "replaced": "2-3"}]},
        "larger has replaced without refit; the new translator",
    ),
    (
        "a larger surrogate by a criterion",
        {"stages": [ENCODER, {**REFIT, "replaced": "two_segment"}]},
        "translator.replaced is 'two_segment'; give layers such as 16-26$",
    ),
    (
        "a larger surrogate that is none",
        {"stages": [ENCODER, {**REFIT, "replaced": "1-2"}], "surrogate__replaced": "2-3"},
        "layers 1-2 cannot be replaced where 2-3 were before",
    ),
    ("more than all data", {"stages__0__share": 2}, "stages.encoder.share is 2; .* less than or equal to 1"),
    ("a key misspelt", {"stages__0__epoch": 2}, "stages.encoder.epoch is unknown; did you mean epochs"),
    # Packs
    ("packs of any length", {"pack_tokens": 256}, "max_length is None and pack_tokens 256; set max_length, at most"),
    (
        "too short packs",
        {"pack_tokens": 64, "max_length": 128},
        "max_length is 128 and pack_tokens 64; set max_length",
    ),
    # Parts
    ("an unknown part", {"stages__0__parts": {"adaptor": 1e-3}}, "stage encoder: part adaptor stands for nothing"),
    (
        "a pattern for nothing",
        {"stages__0__parts": {"*.layers.9.*": 1e-3}},
        r"stage encoder: part \*.layers.9.\* stands",
    ),
    ("too many layers", {"stages__0__parts": {"decoder.last:9": 1e-3}}, "decoder.last:9 asks for 9 layers: .* 1 to "),
    (
        "embeddings of the surrogate",
        {"stages__0__parts": {"decoder": 1e-3}},
        "stage encoder: model.embed_tokens.weight of the surrogate would be trained, and a graft leaves it behind",
    ),
    (
        "LoRA on the surrogate's head",
        {
            "stages": [
                {**ENCODER, "parts": {"lora": 1e-3}, "training": {"lora": {"target_modules": ["lm_head"]}}},
                GRAFT,
            ]
        },
        "stage encoder: lm_head of the surrogate would be trained",
    ),
    ("translators of the target", {"stages__2__parts": {"translator": 1e-3}}, "stage decoder: part translator stands"),
    (
        "two rates for a weight",
        {"stages__0__parts": {"encoder": 1e-4, "encoder.last:1": 1e-3}},
        r"parts encoder \(learning rate 0.0001\) and encoder.last:1 \(0.001\) both train",
    ),
    ("a negative rate", {"stages__0__parts": {"adapter": -1}}, "learning rate of part adapter is -1"),
    ("a run name with a path", {"name": "../../evil"}, "name is '../../evil'; use letters"),
    ("no run name", {"name": ""}, "name is ''; use letters"),
    (
        "epochs of a stage that trains nothing",
        {"stages__1__epochs": 3},
        "stages.graft.epochs is 3.0, but the stage trains no parts; leave it out, or name parts",
    ),
    ("a share of nothing", {"stages__1__share": 0.2}, "stages.graft.share is 0.2, but the stage trains no parts"),
    ("training of nothing", {"stages__1__training": {"learning_rate": 1}}, "stages.graft.training is .*no parts"),
    (
        "the loss of a refit",
        {"stages": [ENCODER, {**REFIT, "special_tokens_in_loss": False}]},
        "stages.translator.special_tokens_in_loss is False, but the stage trains no parts",
    ),
    ("LoRA without its part", training(lora={"r": 2}), "encoder.training.lora is set, but lora is none of the parts"),
    ("LoRA of no stage", {"training__lora": {"r": 2}}, "training.lora is set, but no stage has the part lora"),
    # Target, encoder and surrogate
    ("a revision of a new target", {"target__revision": "v1"}, "target.revision is 'v1', but a new target is not on"),
    (
        "a training of no translator",
        {"surrogate__translator_training": {"learning_rate": 1e-3}},
        "translator_training is set, but surrogate.translator is closed_form; add a method such as train:hidden",
    ),
    ("two targets", {"target__name_or_path": "a/b"}, "target needs either name_or_path or new; give exactly one"),
    ("no target", {"target": {}}, "target needs either name_or_path or new"),
    ("two encoders", {"encoder__name_or_path": "a/b"}, "encoder needs either name_or_path or chain"),
    ("no chain", {"encoder__chain": "none.yaml"}, "Recipe none.yaml cannot be read .*No such file"),
    (
        "a kernel",
        {"target__attn_implementation": "fastest"},
        "target.attn_implementation is 'fastest', which does not",
    ),
    ("a width of no heads", {"target__new__hidden_size": 40}, "head_size is 16, which does not divide hidden_size 40"),
    ("an unknown criterion", {"surrogate__replaced": "by_eye"}, "surrogate.replaced is 'by_eye'; give layers such as"),
    ("explicit without ranges", {"surrogate__replaced": "explicit"}, "surrogate.replaced is 'explicit'; give layers"),
    ("a range outside", {"surrogate__replaced": "2-9"}, "2-9 reaches outside of the model, which has 5 layers"),
    ("no budget", {"surrogate__replaced": "splice_error"}, "splice_error compares ranges of one size: give a budget"),
    ("a budget of two", {"surrogate__budget": {"layers": 2, "macs_share": 0.5}}, "budget needs one measure"),
    ("a budget nothing meets", {"surrogate__budget": {"parameters": 10}}, "leaves 10 parameters .*: give a larger"),
    ("an unknown method", {"surrogate__translator": ["magic"]}, "surrogate.translator: translator method 'magic' is"),
    ("too many translators", {"surrogate__translators": 4}, "no range drops a layer of the target's 5 with transl"),
    (
        "too little text",
        {"surrogate__calibration__translator_samples": 48},
        "data.text has 48 conversations; .* lower",
    ),
    ("text for no fit", {"surrogate__calibration__translator_samples": 4}, "translator_samples is 4; .* 5"),
    (
        "an unknown argument of a translator",
        {"surrogate__translator_training": {"learning_rat": 1e-3}},
        "surrogate.translator_training.learning_rat is unknown; did you mean learning_rate",
    ),
    (
        "an unknown objective",
        {"surrogate__translator_training": {"objective": "beauty"}},
        "surrogate.translator_training.objective='beauty' is unknown: use one of hidden, logits, lm",
    ),
    (
        "a translator that is trained for no epoch",
        {"surrogate__translator_training": {"num_train_epochs": 0}},
        "surrogate.translator_training.num_train_epochs is 0; it must be above 0",
    ),
    # A new target
    (
        "an unknown argument of a new target",
        {"target__new__training": {"learning_rat": 1e-3}},
        "target.new.training.learning_rat is unknown; did you mean learning_rate",
    ),
    ("a seed of its own", {"target__new__training": {"seed": 1}}, "target.new.training.seed is set by the runner"),
    (
        "a new target on a stream",
        {"data__talk": {"source": "talk.json", "streaming": True}, "target__new__data": ["talk"]},
        "target.new.data names the stream talk; unset its streaming",
    ),
    # Data
    ("missing data", {"stages__0__data": ["photos"]}, "encoder.data names 'photos'; data has images, text"),
    ("no data for the target", {"target__new__data": ["words"]}, "target.new.data names 'words'; data has"),
    ("no data to ask", {"evaluation__data": ["photos"]}, "evaluation.data names 'photos'"),
    ("a split that is not there", {"evaluation__splits": ["exam"]}, "evaluation.splits has 'exam'; data.images has"),
    ("no validation", {"data__text__validation_split": None}, "data.text has no validation split, which target.new"),
    ("a source that is not there", {"data__images": {"source": "/no/mix.json"}}, "/no/mix.json"),
    (
        "a stream without length",
        {"data__images": {"source": "x/y", "streaming": True}},
        "data.images.streaming is true without max_train_samples; say how many conversations",
    ),
    (
        "a share of a stream",
        {"data__images": {"source": "x/y", "streaming": True}, "stages__0__share": 0.5},
        "encoder.share is 0.5 of the stream images; set its epochs",
    ),
    (
        "a stream among others",
        {"data__images": {"source": "x/y", "streaming": True}, "stages__0__data": ["images", "text"]},
        "encoder.data mixes the stream images with others; unset its streaming",
    ),
    # Training and machine
    ("an unknown option", training(learning_rat=1), "encoder.training.learning_rat is unknown; did you mean"),
    (
        "an option of the runner",
        training(max_steps=3),
        "encoder.training.max_steps is set by the runner; use `epochs`",
    ),
    ("a schedule", training(lr_scheduler_type="cosin"), "encoder.training.lr_scheduler_type is 'cosin'; use one of"),
    ("two precisions", {"training": {"fp16": True}}, "fp16 is true beside bf16, which is true .* bf16 to false"),
    ("the name of a stage", training(stage="x"), "encoder.training.stage is set by the runner; use `name` of the"),
    ("parts in training", {"training__parts": ["adapter"]}, "training.parts is set by the runner; use `parts` of the"),
    ("checkpoints cut short", training(save_only_model=True), "save_only_model is set by the runner; a run goes on"),
    ("rows from the start", training(ignore_data_skip=True), "ignore_data_skip is set by the runner; a run goes on"),
    ("evaluation at the start", training(eval_on_start=True), "eval_on_start is set by the runner; models are"),
    (
        "fewer rows than a batch",
        training(dataloader_drop_last=True, per_device_train_batch_size=512),
        "stage encoder: a batch has 512 conversations and the data only 48: lower per_device_train_batch_size",
    ),
    (
        "endless epochs",
        {"stages": [{**ENCODER, "epochs": 1e30}, GRAFT]},
        "stages.encoder.epochs is 1e.30; .* less than or equal to 100000",
    ),
    (
        "a missing optimizer",
        training(optim="adamw_bnb_8bit"),
        "training: optim 'adamw_bnb_8bit' does not",
    ),
    (
        "a schedule of the baseline",
        {"baseline__0__training": {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 9.0}}},
        r"full.training: lr_scheduler_type 'polynomial' does not work here: lr_end \(9.0\)",
    ),
    (
        "an optimizer of the target",
        {"target__new__training": {"optim": "lomo"}},
        "target.new.training: optim 'lomo' does not work here",
    ),
    (
        "an optimizer of the translator",
        {"surrogate__translator": ["train:hidden"], "surrogate__translator_training": {"optim": "lomo"}},
        "surrogate.translator_training: optim 'lomo' does not work here",
    ),
    (
        "noise that no translator sees",
        {"surrogate__translator": ["train:hidden"], "surrogate__translator_training": {"neftune_noise_alpha": 5.0}},
        "surrogate.translator_training.neftune_noise_alpha would do nothing",
    ),
    (
        "an engine with an optimizer",
        training(deepspeed={"optimizer": {"type": "AdamW"}}),
        "the DeepSpeed configuration has a section optimizer",
    ),
    (
        "a setting that needs another",
        training(dataloader_persistent_workers=True),
        "dataloader_persistent_workers is True and would do nothing: it needs dataloader_num_workers above 0",
    ),
    ("an unknown tracker", training(report_to="wandbb"), "report_to has 'wandbb', which is not installed"),
    ("a folder one cannot write", {"output_dir": "/proc/runs"}, "/proc/runs/tiny cannot be written .* another output"),
]


@pytest.mark.parametrize(("changes", "words"), [pytest.param(*case[1:], id=case[0]) for case in WRONG_VALUES])
def test_a_wrong_value_is_refused_before_anything_is_made(
    changes: dict[str, Any], words: str, hf_chain: Command, tmp_path: Path
) -> None:
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert re.search(words, message), message
    assert not (tmp_path / "runs").exists()


def test_what_is_for_chains_is_refused(hf_chain: Command, tmp_path: Path) -> None:
    message = hf_chain("run", recipe_for(tmp_path), "--independent").message
    assert message.startswith("--independent is for chains") and "baseline section" in message


def test_pushing_without_a_login_is_refused(
    hf_chain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    message = hf_chain("run", recipe_for(tmp_path), "--push-to-hub", "--hub-prefix", "me/graft").message
    assert message.startswith("Not logged in to the Hub")


def test_another_recipe_does_not_go_on_with_a_run(hf_chain: Command, tmp_path: Path) -> None:
    recipe = load_graft_recipe(recipe_for(tmp_path), ["seed=7"])
    decided = recipe.model_dump(mode="json")
    Ledger(recipe.run_dir).append("run_started", recipe=decided, plan={}, environment={})
    message = hf_chain("run", recipe_for(tmp_path)).message
    assert "was begun with seed=7, the recipe now says 0: restore it, choose another name" in message


def test_settings_that_are_newer_than_a_run_do_not_stop_it(tmp_path: Path) -> None:
    recipe = load_graft_recipe(recipe_for(tmp_path))
    decided = recipe.model_dump(mode="json")
    assert decided["stages"][0].pop("share") == 1
    Ledger(recipe.run_dir).append("run_started", recipe=decided, plan={}, environment={})
    check_same_recipe(recipe, read_family(recipe.run_dir))


# Conversations with something wrong, on a target and an encoder that are there.


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a target and an encoder."""
    folder = tmp_path_factory.mktemp("models")
    write_target(folder / "target")
    tiny_tower().save_pretrained(folder / "encoder")
    image_processor().save_pretrained(folder / "encoder")
    return folder


def given(models: Path) -> dict[str, Any]:
    """Sections of a recipe that names them."""
    return {
        "target": {"name_or_path": str(models / "target")},
        "encoder": {"name_or_path": str(models / "encoder")},
        "surrogate": {"replaced": "2-4", "translator": ["inherit"], "calibration": {"samples": 4, "batch_size": 4}},
        "surrogate__calibration__translator_samples": 5,
        "stages": [ENCODER, GRAFT],
        "baseline": [],
    }


def test_tokens_that_the_target_does_not_embed_are_refused_before_the_work(
    hf_chain: Command, models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "target", tmp_path / "target")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "target")
    tokenizer.add_tokens([f"word{number}" for number in range(500)])
    tokenizer.save_pretrained(tmp_path / "target")
    changes = given(models) | {"target": {"name_or_path": str(tmp_path / "target")}}
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert re.search(
        r"the tokenizer's 'word499' has the number \d+, but the language model embeds \d+ tokens", message
    )


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("part", ["target", "encoder"])
def test_adapters_beside_models_of_a_recipe_are_refused(
    hf_chain: Command, models: Path, tmp_path: Path, part: str, command: str
) -> None:
    shutil.copytree(models / part, tmp_path / "adapted")
    (tmp_path / "adapted" / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    changes = given(models) | {part: {"name_or_path": str(tmp_path / "adapted")}}
    message = hf_chain(command, recipe_for(tmp_path, **changes)).message
    assert "adapted holds an adapter of some/base (adapter_config.json): merge it into the weights" in message


def test_an_encoder_that_is_not_finite_is_refused_before_the_work(
    hf_chain: Command, models: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "encoder", tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    name = next(name for name in weights if name.endswith("fc1.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
    changes = given(models) | {"encoder": {"name_or_path": str(tmp_path / "broken")}}
    assert (
        f"{name} of {tmp_path / 'broken'} holds NaN or inf" in hf_chain("run", recipe_for(tmp_path, **changes)).message
    )


def test_a_target_that_cannot_chat_is_refused(hf_chain: Command, models: Path, tmp_path: Path) -> None:
    write_target(tmp_path / "silent", template=False)
    changes = given(models) | {"target": {"name_or_path": str(tmp_path / "silent")}}
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert "silent has no chat template; set tokenizer.chat_template, or take the instruction-tuned" in message


def test_an_encoder_that_is_none_is_refused(hf_chain: Command, models: Path, tmp_path: Path) -> None:
    changes = given(models) | {"encoder": {"name_or_path": str(models / "target")}}
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert "vision model_type 'llama' is not known: use one of clip_vision_model" in message
    changes = given(models) | {"encoder": {"name_or_path": "./none"}}
    assert "there is no folder ./none" in hf_chain("run", recipe_for(tmp_path, **changes)).message


@pytest.mark.parametrize(("damage", "words"), [("cut short", "no readable safetensors"), ("lacking", "lacks ")])
def test_a_damaged_encoder_is_refused(
    damage: str, words: str, hf_chain: Command, models: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(models / "encoder", tmp_path / "encoder"))
    file = folder / "model.safetensors"
    if damage == "lacking":
        save_file({n: w for n, w in load_file(file).items() if "layers.1" not in n}, file, {"format": "pt"})
    else:
        file.write_bytes(file.read_bytes()[:2000])
    changes = given(models) | {"encoder": {"name_or_path": str(folder)}}
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert re.search(words, message) and str(folder) in message


def test_an_encoder_without_its_image_processor_is_refused(hf_chain: Command, models: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(models / "encoder", tmp_path / "bare"))
    (bare / "preprocessor_config.json").unlink()
    changes = given(models) | {"encoder": {"name_or_path": str(bare)}}
    assert "image processor" in hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert not (tmp_path / "runs").exists()


def test_images_of_another_size_than_the_encoder_takes_are_refused(
    hf_chain: Command, models: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(models / "encoder", tmp_path / "other"))
    size = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
    CLIPImageProcessorPil(**size).save_pretrained(other)
    changes = given(models) | {"encoder": {"name_or_path": str(other)}}
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert "makes images of 24x24 pixels, the encoder takes 16x16" in message
    assert not (tmp_path / "runs").exists()


def test_several_processes_are_not_left_waiting_for_a_trained_translator(
    hf_chain: Command, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("hf_chain.methods.runner.join_processes", lambda training: None)
    changes = given(models) | {"surrogate__translator": ["closed_form", "train:hidden"]}
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert "translator is closed_form, train:hidden, and one process trains it: start this recipe without" in message
    assert not (tmp_path / "runs").exists()


def test_a_larger_surrogate_that_is_none_is_found_as_soon_as_the_cut_is(
    hf_chain: Command, models: Path, tmp_path: Path
) -> None:
    changes = given(models) | {"stages": [ENCODER, {**REFIT, "replaced": "0-1"}, GRAFT]}
    changes["surrogate"] = {**changes["surrogate"], "replaced": "two_segment"}
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert re.search(r"layers 0-1 cannot be replaced where \S+ were before: name some of those", message), message
    assert not list((tmp_path / "runs" / "tiny").glob("0*"))


def conversation(number: int) -> dict[str, Any]:
    turns = [("human", f"<image>\nwhat is number {number}?"), ("gpt", f"it is {number}")]
    return {"id": number, "image": "red.png", "conversations": [{"from": who, "value": text} for who, text in turns]}


def write_llava(folder: Path) -> list[dict[str, Any]]:
    """Forty conversations about a picture, of which the first seven are bad, each in its own way."""
    Image.new("RGB", (20, 16), "red").save(folder / "red.png")
    (folder / "broken.png").write_bytes((folder / "red.png").read_bytes()[:40])
    rows = [conversation(number) for number in range(40)]
    rows[0]["image"] = "missing.png"
    rows[1]["image"] = "broken.png"
    rows[2]["conversations"].pop()
    rows[3]["conversations"][0]["value"] = "what is in the picture?"
    rows[4]["conversations"][0]["value"] = "<image><image>\nwhich is larger?"
    rows[5]["conversations"][0]["value"] = "<image>\n" + "very " * 300 + "large?"
    rows[6] = {"id": 6}
    return rows


REASONS = [
    "there is no such image: image_folder names the folder that relative paths start from",
    "an image cannot be read",
    "there is no response",
    "there are 1 images for 0 <image> placeholders",
    "there are 1 images for 2 <image> placeholders",
    "and no response is left of it at max_length 64",
    "there are no messages",
]


def test_rows_that_cannot_be_used_are_counted_and_reported(hf_chain: Command, models: Path, tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_text(json.dumps(write_llava(tmp_path)))
    data = {"source": str(tmp_path / "mix.json"), "train_split": "train[:35]", "validation_split": "train[35:]"}
    changes = given(models) | {"data": {"images": data}, "max_length": 64}
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert re.search(r"7 of 35 rows of images are bad \(20.0%\): row 0 .*missing.png.: .*image_folder", message), (
        message
    )
    assert "raise max_bad_share (now 0.01)" in message
    report = tmp_path / "runs" / "tiny" / "data" / "images-bad-rows.json"
    bad = json.loads(report.read_text())["bad"]
    assert [row["row"] for row in bad] == list(range(7))
    for row, reason in zip(bad, REASONS, strict=True):
        assert re.search(reason, row["problem"]), row
    # Nothing is cut for data that cannot be used.
    assert str(report) in message and not list((tmp_path / "runs" / "tiny").glob("0?-*"))


def test_questions_that_cannot_be_asked_are_found_before_the_training(
    hf_chain: Command, models: Path, tmp_path: Path
) -> None:
    (tmp_path / "mix.json").write_text(json.dumps(write_llava(tmp_path)))
    data = {"source": str(tmp_path / "mix.json"), "train_split": "train[10:]", "validation_split": "train[:10]"}
    changes = given(models) | {"data": {"images": data}, "max_length": 64}
    message = hf_chain("run", recipe_for(tmp_path, **changes)).message
    assert re.search(r"7 of 10 rows of images validation are bad \(70.0%\)", message), message
    assert not list((tmp_path / "runs" / "tiny").glob("0?-*"))


@pytest.mark.parametrize("content", ["", "[{'id': 0", '[{"id": 0, "conversations": [', "\x00\x01\x02"])
def test_a_file_that_is_no_json_is_refused(content: str, hf_chain: Command, models: Path, tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_text(content)
    data = {"images": {"source": str(tmp_path / "mix.json"), "validation_split": None}}
    message = hf_chain("run", recipe_for(tmp_path, **given(models) | {"data": data})).message
    assert "mix.json" in message and not (tmp_path / "runs").exists()
