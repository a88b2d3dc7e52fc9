"""`hf-chain plan`, `eval`, `surrogate`, `graft`, `export` and `chat` on tiny models."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    LlavaForConditionalGeneration,
)

from hf_chain.cli.terminal import talk
from hf_chain.commands.chat import Conversation
from hf_chain.grafting.lineage import read_lineage
from hf_chain.methods.graft.headline import load_grafted
from support.command_line import Command
from support.graft_recipes import tiny_graft_values, write_grafted, write_target
from support.recipes import environment, write_recipe

FEW = ["--samples", "12", "--measured", "6", "--batch-size", "6"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target, a vision-language model on its surrogate, LLaVA-style conversations and a photograph."""
    folder = tmp_path_factory.mktemp("models")
    write_target(folder / "target")
    write_grafted(folder / "trained", folder / "target")
    turns = [
        [f"<image>\nwhat is number {n} of the shapes, is it red or blue?", f"number {n} is red"] for n in range(24)
    ]
    rows = [
        {"id": n, "image": "x.png", "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
        for n, (q, a) in enumerate(turns)
    ]
    (folder / "mix.json").write_text(json.dumps(rows))
    Image.new("RGB", (40, 30), "red").save(folder / "red.png")
    return folder


def test_the_plan_of_a_graft_is_a_table(hf_chain: Command, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_graft_values(tmp_path))
    outcome = hf_chain("plan", recipe, "--tflops", "0.5")
    assert outcome.status == 0, outcome.err
    for words in (
        "| finding the cut ",
        "| encoder ",
        "| baseline: full ",
        "48 conversations with",
        "The cut is assumed",
    ):
        assert words in outcome.out
    for words in ("than the baseline: ", "At 0.5 TFLOP/s the graft takes", "Memory on one device"):
        assert words in outcome.out
    assert not (tmp_path / "runs").exists()


def test_the_plan_of_a_graft_is_json(hf_chain: Command, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_graft_values(tmp_path))
    changes = ["--set", "surrogate.replaced=1-3", "--set", "baseline=[]", "--set", "stages.decoder.epochs=2"]
    plan = json.loads(hf_chain("plan", recipe, "--json", *changes).out)
    assert plan["surrogate"]["replaced"] == ["1-3"] and plan["surrogate"]["layers"] == 3
    assert (
        not plan["surrogate"]["assumed"] and plan["surrogate"]["cut_macs"] == 0 < plan["surrogate"]["translator_macs"]
    )
    encoder, graft, decoder = plan["stages"]
    assert (encoder["samples"], graft["samples"], decoder["samples"]) == (48, 0, 2 * 19)
    assert graft["macs"] == 0 < encoder["macs"] < decoder["macs"]
    assert plan["comparison"] is None and plan["memory"]["decoder"] > plan["memory"]["graft"]


def test_named_layers_are_cut_without_loading_the_target(
    hf_chain: Command, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = "hf_chain.commands.surrogate.load_language_model"
    monkeypatch.setattr(loader, lambda *_, **__: pytest.fail("the target was loaded"))
    command = ["surrogate", models / "target", tmp_path / "out", "--replaced", "1-2,3-4", "--method", "inherit"]
    outcome = hf_chain(*command)
    assert outcome.status == 0, outcome.err
    assert "4 of 6 layers are kept (0-1, 3, 5)" in outcome.out
    assert "of the language model's MACs are saved" in outcome.out
    assert "layers 1-2 and 3-4 are replaced by 1 layer, made by inherit" in outcome.out
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.num_hidden_layers == 4
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template


CRITERIA = [
    (["--replaced", "two_segment"], "closed_form"),
    (["--replaced", "block_influence", "--budget", "layers=4", "--method", "inherit"], "inherit"),
    (["--replaced", "splice_error", "--budget", "macs_share=0.8"], "closed_form"),
]


@pytest.mark.parametrize(("options", "method"), CRITERIA, ids=[case[0][1] for case in CRITERIA])
def test_a_criterion_finds_the_cut_and_draws_it(
    options: list[str], method: str, hf_chain: Command, models: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    outcome = hf_chain("surrogate", models / "target", output, "--data", models / "mix.json", *FEW, *options)
    assert outcome.status == 0, outcome.err
    for words in (
        "layers are kept",
        "MACs are saved",
        "splice error",
        "perplexity",
        f"made by {method}",
        "trajectory.png",
    ):
        assert words in outcome.out
    assert (output / "trajectory.png").read_bytes().startswith(b"\x89PNG")
    lineage = read_lineage(AutoModelForCausalLM.from_pretrained(output).config)
    assert lineage.translator_method == method and lineage.replaced[-1].last <= 4
    assert json.loads((output / "translator.json").read_text())["method"] == method


def test_a_graft_and_its_export_answer_alike(hf_chain: Command, models: Path, tmp_path: Path) -> None:
    outcome = hf_chain("graft", models / "trained", models / "target", tmp_path / "grafted")
    assert outcome.status == 0 and "parameters of" in outcome.out
    found, target = load_file(tmp_path / "grafted" / "model.safetensors"), AutoModelForCausalLM
    expected = target.from_pretrained(models / "target").state_dict()
    assert all(torch.equal(found[f"language_model.{name}"], value) for name, value in expected.items())
    outcome = hf_chain("export", tmp_path / "grafted", tmp_path / "llava")
    assert outcome.status == 0 and "a stock Llava with the same logits" in outcome.out
    for name, typed in (("grafted", "graft trained target grafted"), ("llava", "export grafted llava")):
        card = (tmp_path / name / "README.md").read_text()
        assert f"```bash\nhf-chain {typed}\n```" in card and str(tmp_path) not in card
    logits = []
    classes: list[tuple[Any, str]] = [
        (AutoModelForImageTextToText, "grafted"),
        (LlavaForConditionalGeneration, "llava"),
    ]
    for auto, name in classes:
        model, processor = auto.from_pretrained(tmp_path / name), AutoProcessor.from_pretrained(tmp_path / name)
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is it red?"}]}]
        prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
        picture = Image.open(models / "red.png")
        inputs = processor(images=picture, text=prompt, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            logits.append(model(**inputs).logits[0, -1])
    assert torch.allclose(logits[0], logits[1][: len(logits[0])], atol=1e-5)


def test_the_format_of_an_export_can_be_named(hf_chain: Command, models: Path, tmp_path: Path) -> None:
    written = []
    for name, form in (("named", ["--format", "llava"]), ("default", [])):
        outcome = hf_chain("export", models / "trained", tmp_path / name, *form)
        assert outcome.status == 0 and f"{name}: a stock Llava with the same logits" in outcome.out
        files = [path for path in (tmp_path / name).iterdir() if path.name != "README.md"]
        written.append({path.name: path.read_bytes() for path in files})
    assert written[0] == written[1] and "need --format llava-serving" in outcome.out
    assert hf_chain("export", models / "trained", tmp_path / "served", "--format", "llava-serving").status == 0
    for name, layers in (("named", [-2, -1]), ("served", -1)):
        model, loading = LlavaForConditionalGeneration.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not any(loading.values()), loading
        assert model.config.vision_feature_layer == layers


def test_eval_asks_the_questions_of_a_recipe(hf_chain: Command, models: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", tiny_graft_values(tmp_path))
    source = f"data.images={{source: {models / 'mix.json'}, train_split: 'train[6:]', validation_split: 'train[:6]'}}"
    (models / "x.png").write_bytes((models / "red.png").read_bytes())
    outcome = hf_chain("eval", models / "trained", "--recipe", recipe, "--set", source)
    assert outcome.status == 0, outcome.err
    assert 0 <= json.loads(outcome.out)["validation"]["exact_match"] <= 1
    assert not (tmp_path / "runs").exists()


def test_a_question_is_answered(hf_chain: Command, models: Path) -> None:
    question = ["is it red?", "--image", models / "red.png", "--max-new-tokens", "5"]
    outcome = hf_chain("chat", models / "trained", *question)
    assert outcome.status == 0, outcome.err
    conversation = Conversation(*load_grafted(str(models / "trained")), max_new_tokens=5)
    conversation.show(models / "red.png")
    said: list[str] = []
    answer = conversation.ask("is it red?", said.append)
    assert outcome.out.strip() == answer == "".join(said).strip()


def test_questions_of_a_conversation_follow_each_other(models: Path) -> None:
    conversation = Conversation(*load_grafted(str(models / "trained")), max_new_tokens=4)
    conversation.show(models / "red.png")
    first = conversation.ask("is it red?")
    conversation.ask("and is it blue?")
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2
    assert conversation.messages[0]["content"].startswith("<image>") and len(conversation.images) == 1
    assert conversation.messages[2]["content"] == "and is it blue?"
    conversation.forget()
    assert conversation.ask("is it red?") == first
    conversation.show(models / "red.png")
    assert not conversation.messages


def test_the_terminal_goes_on_after_what_went_wrong(
    hf_chain: Command, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["is it red?", "/image nowhere.png", "/what", "", f"/image {models / 'red.png'}", "/new", "is it <image>?"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
    outcome = hf_chain("chat", models / "trained", "--max-new-tokens", "3")
    assert outcome.status == 0
    problems = [line for line in outcome.err.splitlines() if line]
    assert problems[-3:] == [
        "There is no file nowhere.png: give a picture, such as a PNG or JPEG file",
        "'/what' is no command: write /image PATH, /new, or a question",
        "this cannot be asked, there are 1 images for 2 <image> placeholders: ask without <image>",
    ]
    assert outcome.out.count("> ") == len(lines) + 1


@pytest.mark.slow
def test_the_terminal_takes_any_bytes(models: Path, tmp_path: Path) -> None:
    """In questions, in names of files, and in what it says about them."""
    shown = os.fsencode(tmp_path) + b"/r\xe9d \xff.png"
    shutil.copy(models / "red.png", shown)
    lines = [b"is it r\xe9d?", b"/image " + shown, b"is it \xff\xfe red?", b"\x00\x80\xc3", b"/image n\xe9.png"]
    arguments = [sys.executable, "-m", "hf_chain", "chat", str(models / "trained"), "--max-new-tokens", "3"]
    done = subprocess.run(arguments, input=b"\n".join(lines), env=environment(), capture_output=True, check=False)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr[-2000:]
    problems = [line for line in done.stderr.splitlines() if b"There is no file" in line]
    assert problems == [b"There is no file n\\udce9.png: give a picture, such as a PNG or JPEG file"]
    assert done.stdout.count(b"> ") == len(lines) + 1


@pytest.mark.parametrize("written", ["{}", "'{}'", '"{}"', "{escaped}", "{address}", "'{address}'", "  {escaped}  "])
@pytest.mark.parametrize("command", ["/image ", ""])
def test_a_picture_is_shown_as_terminals_write_its_path(
    command: str, written: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "my (red) picture.png"
    shutil.copy(models / "red.png", picture)
    escaped = re.sub(r"([ ()])", r"\\\1", str(picture))
    line = command + written.format(picture, escaped=escaped, address=picture.as_uri())
    shown: list[Path] = []
    conversation = SimpleNamespace(show=shown.append, ask=lambda *_: pytest.fail("it was asked"))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{line}\n"))
    talk(cast("Conversation", conversation))
    assert shown == [picture]


@pytest.mark.parametrize(
    "question", ["is it a\tred.png?", "'is it red?'", "it's red?", "~ is it?", "'" + "long " * 2000]
)
def test_questions_are_no_paths(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    conversation = SimpleNamespace(ask=lambda text, say: asked.append(text))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{question}\n"))
    talk(cast("Conversation", conversation))
    assert asked == [question.strip()]
