"""Wrong input to `hf-chain surrogate`, `graft`, `export` and `chat`: one line each, and nothing is left behind."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertModel

from support.command_line import Command
from support.graft_recipes import write_grafted, write_target

LONG = "a long line of many words that says nothing about anything at all\n"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of six layers in several shards."""
    return write_target(tmp_path_factory.mktemp("models") / "target")


@pytest.fixture(scope="module")
def grafted(target: Path) -> Path:
    """A vision-language model on a surrogate of it."""
    return write_grafted(target.parent / "grafted", target)


@pytest.fixture(scope="module")
def text(target: Path) -> Path:
    """A file of twenty lines."""
    file = target.parent / "text.txt"
    file.write_text(LONG * 20)
    return file


def refused(hf_chain: Command, output: Path, words: str, *arguments: object) -> None:
    """The command says so in one line and makes no folder."""
    before = set(output.parent.iterdir())
    outcome = hf_chain(*arguments)
    assert re.search(words, outcome.message), outcome.message
    assert "\n" not in outcome.message and set(output.parent.iterdir()) == before


CUTS = [
    ("outside of the model", ["--replaced", "3-12"], "3-12 reaches outside of the model, which has 6 layers: stay"),
    ("empty", ["--replaced", "4-2"], "layer range 4-2 is empty, it ends before it starts: did you mean 2-4"),
    ("overlapping", ["--replaced", "1-3,3-4"], "layer ranges 1-3 and 3-4 overlap: give ranges that share no layer"),
    ("the last layer", ["--replaced", "2-5"], "2-5 replaces the model's last layer, which the surrogate keeps"),
    ("nothing is dropped", ["--replaced", "2-4", "--translators", "3"], "3 layers for translators=3, so nothing is"),
    (
        "unknown criterion",
        ["--replaced", "two_segmnt"],
        "'two_segmnt' cannot be read: .* or one of two_segment, block",
    ),
    ("no budget", ["--replaced", "block_influence"], "give a budget in parameters, macs_share or layers"),
    (
        "impossible budget",
        ["--budget", "layers=1"],
        "no range of the target's 6 layers leaves 1 layers .* larger budget",
    ),
    ("strange budget", ["--budget", "half"], "budget 'half' cannot be read: write layers=12, macs_share=0.6"),
    ("budget above all", ["--budget", "macs_share=1.5"], "budget macs_share=1.5 is impossible: give a share"),
    ("budget for named layers", ["--replaced", "2-4", "--budget", "layers=5"], "is for criteria, and layers 2-4 are"),
    ("unknown method", ["--method", "magic"], "translator method 'magic' is unknown: use one or several of inherit"),
]


@pytest.mark.parametrize(("options", "words"), [pytest.param(*case[1:], id=case[0]) for case in CUTS])
def test_a_cut_that_cannot_be_is_refused(
    options: list[str], words: str, hf_chain: Command, target: Path, text: Path, tmp_path: Path
) -> None:
    few = ["--data", text, "--samples", "8", "--measured", "4", *options]
    refused(hf_chain, tmp_path / "out", words, "surrogate", target, tmp_path / "out", *few)


def test_a_cut_without_text_is_refused_where_it_needs_some(hf_chain: Command, target: Path, tmp_path: Path) -> None:
    for options in ([], ["--replaced", "2-4"], ["--method", "inherit"]):
        refused(hf_chain, tmp_path / "out", "give --data, a file", "surrogate", target, tmp_path / "out", *options)


TEXTS = [
    ("too short", "text.txt", LONG * 3, "text.txt has too few rows: the first 4 are .* none is left for --samples"),
    ("empty", "text.txt", "\n\n\n\n\n\n\n", "has no row that can be used, .* empty: give others"),
    ("no JSON", "chat.json", "[{'conversations': ", "chat.json cannot be .*"),
    ("no text in it", "rows.jsonl", '{"number": 3}\n' * 9, "has no column 'text'; its columns are number"),
]


@pytest.mark.parametrize(("name", "content", "words"), [pytest.param(*case[1:], id=case[0]) for case in TEXTS])
def test_text_that_cannot_be_used_is_refused_before_the_model_is_loaded(
    name: str,
    content: str,
    words: str,
    hf_chain: Command,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / name).write_text(content)
    loader = "hf_chain.commands.surrogate.load_language_model"
    monkeypatch.setattr(loader, lambda *_, **__: pytest.fail("the model was loaded"))
    options = ["--data", tmp_path / name, "--samples", "8", "--measured", "4"]
    refused(hf_chain, tmp_path / "out", words, "surrogate", target, tmp_path / "out", *options)


def test_conversations_need_a_chat_template(hf_chain: Command, tmp_path: Path) -> None:
    target = write_target(tmp_path / "target", template=False)
    row = {"messages": [{"role": "user", "content": "is it red?"}, {"role": "assistant", "content": "yes"}]}
    (tmp_path / "chat.jsonl").write_text(f"{json.dumps(row)}\n" * 20)
    options = ["--data", tmp_path / "chat.jsonl", "--samples", "8", "--measured", "4"]
    refused(
        hf_chain,
        tmp_path / "out",
        "tokenizer .*target has no chat template",
        "surrogate",
        target,
        tmp_path / "out",
        *options,
    )


def damaged(folder: Path, damage: str) -> Path:
    """The same model, broken."""
    shard = max(folder.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    if damage == "encrypted":
        shard.write_bytes(bytes(byte ^ 0xA5 for byte in shard.read_bytes()))
    elif damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:1000])
    elif damage == "missing":
        shard.unlink()
    else:
        torch.save(load_file(shard), folder / "pytorch_model.bin")
        for file in (*folder.glob("*.safetensors"), *folder.glob("*.index.json")):
            file.unlink()
    return folder


DAMAGES = [
    ("encrypted", "is no readable safetensors file .*: it is encrypted, cut short or damaged"),
    ("truncated", "is no readable safetensors file"),
    ("missing", "lacks its shard .*: download it again|holds no weights"),
    ("pickled", "holds pytorch_model.bin and no safetensors, and other files are not read"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damaged_checkpoints_are_refused_by_every_command(
    damage: str, words: str, hf_chain: Command, target: Path, grafted: Path, tmp_path: Path
) -> None:
    bad_target = damaged(Path(shutil.copytree(target, tmp_path / "target")), damage)
    bad_grafted = damaged(Path(shutil.copytree(grafted, tmp_path / "grafted")), damage)
    cut = ["--replaced", "2-4", "--method", "inherit"]
    out = tmp_path / "out"
    refused(hf_chain, out, words, "surrogate", bad_target, out, *cut)
    refused(hf_chain, out, words, "graft", grafted, bad_target, out)
    refused(hf_chain, out, words, "graft", bad_grafted, target, out)
    refused(hf_chain, out, words, "export", bad_grafted, out)
    refused(hf_chain, out, words, "chat", bad_grafted, "is it red?")


def test_a_model_that_lacks_weights_is_refused(hf_chain: Command, grafted: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(grafted, tmp_path / "grafted"))
    file = folder / "model.safetensors"
    state = {name: value for name, value in load_file(file).items() if not name.startswith("adapter")}
    save_file(state, file, {"format": "pt"})
    refused(hf_chain, tmp_path / "out", "lacks adapter.0.bias and 3 more weights", "export", folder, tmp_path / "out")


def test_adapters_and_gguf_files_in_place_of_models_are_named(
    hf_chain: Command, target: Path, grafted: Path, tmp_path: Path
) -> None:
    """Beside a model, transformers would put an adapter into it: a graft would be put on other weights than read."""
    out, cut = tmp_path / "out", ["--replaced", "2-4", "--method", "inherit"]
    adapter = json.dumps({"base_model_name_or_path": "some/base", "peft_type": "LORA"})
    beside, alone = (Path(shutil.copytree(target, tmp_path / name)) for name in ("beside", "alone"))
    vlm, gguf = Path(shutil.copytree(grafted, tmp_path / "vlm")), tmp_path / "quantised"
    for folder in (beside, alone, vlm):
        (folder / "adapter_config.json").write_text(adapter)
    (alone / "config.json").unlink()
    gguf.mkdir()
    (gguf / "model-q4.gguf").write_bytes(b"GGUF")
    for folder, words in (
        (beside, r"holds an adapter of some/base \(adapter_config.json\): merge it into the weights"),
        (alone, r"holds an adapter of some/base \(adapter_config.json\) and no config.json: merge it"),
        (gguf, "quantised holds model-q4.gguf, a GGUF file, and no config.json: give the folder of the model"),
    ):
        refused(hf_chain, out, words, "surrogate", folder, out, *cut)
        refused(hf_chain, out, words, "graft", grafted, folder, out)
        refused(hf_chain, out, words, "grow", folder, out, "--vision-width", "64")
        refused(hf_chain, out, words, "export", folder, out)
    for command in (["graft", vlm, target, out], ["export", vlm, out], ["chat", vlm, "is it red?"]):
        refused(hf_chain, out, "vlm holds an adapter of some/base", *command)


def test_other_models_are_refused(hf_chain: Command, target: Path, grafted: Path, tmp_path: Path) -> None:
    bert = tmp_path / "bert"
    shape = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    BertModel(BertConfig(num_hidden_layers=1, **shape)).save_pretrained(bert)
    out, cut = tmp_path / "out", ["--replaced", "0-1", "--method", "inherit"]
    refused(hf_chain, out, "model_type 'bert' is not known to grafting", "surrogate", bert, out, *cut)
    refused(hf_chain, out, "is a llama, no grafted model: give what", "graft", target, target, out)
    refused(hf_chain, out, "is a llama, no grafted model", "export", target, out)
    refused(hf_chain, out, "is a bert, no grafted model", "chat", bert, "is it red?")
    for command in (
        ["surrogate", "./none", out, *cut],
        ["graft", grafted, "./none", out],
        ["chat", "./none", "hello"],
    ):
        refused(hf_chain, out, "there is no folder ./none: give the folder of a model, or a Hub name", *command)


def test_a_target_that_does_not_fit_is_refused(hf_chain: Command, target: Path, grafted: Path, tmp_path: Path) -> None:
    wide, out = write_target(tmp_path / "wide", hidden_size=32), tmp_path / "out"
    refused(
        hf_chain, out, "embedding size is 32, the adapter's 16.* Graft it onto its own", "graft", grafted, wide, out
    )
    other = Path(shutil.copytree(target, tmp_path / "other"))
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["goldfish"])
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(other)
    words = "its vocabulary differs .*'goldfish' is .*, was missing; its chat template differs. Graft it onto its own"
    refused(hf_chain, out, words, "graft", grafted, other, out)
    deep = write_target(tmp_path / "deep", num_hidden_layers=8)
    refused(hf_chain, out, "it has 8 layers, the surrogate was cut from 6 of target", "graft", grafted, deep, out)


def test_an_export_that_llava_cannot_hold_is_refused(hf_chain: Command, target: Path, tmp_path: Path) -> None:
    deep, out = write_grafted(tmp_path / "deep", target, adapter_layers=3), tmp_path / "out"
    refused(hf_chain, out, "cannot be exported to Llava: its adapter has 3 layers, Llava's has 2", "export", deep, out)
    refused(
        hf_chain, out, "format 'gguf' is unknown: use llava or llava-serving", "export", deep, out, "--format", "gguf"
    )


@pytest.mark.parametrize("place", ["taken", "file", "file/inside", "/proc/out"])
def test_results_replace_nothing_and_are_made_where_one_may_write(
    place: str, hf_chain: Command, target: Path, grafted: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("years of work")
    output = tmp_path / place
    commands = [
        ["surrogate", target, output, "--replaced", "2-4", "--method", "inherit"],
        ["graft", grafted, target, output],
        ["export", grafted, output],
    ]
    for command in commands:
        message = hf_chain(*command).message
        assert message.startswith(f"{output} exists already" if output.exists() else f"{output} cannot be made")
    assert (tmp_path / "file").read_text() == "years of work" and not list((tmp_path / "taken").iterdir())


def test_a_chat_about_no_picture_is_refused(hf_chain: Command, grafted: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    Image.new("RGB", (40, 30), "red").save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    cases = [
        ("notes.png", "notes.png is no picture that can be read .*: give a PNG or JPEG"),
        ("half.png", "half.png is no picture that can be read"),
        ("none.png", "There is no file .*none.png: give a picture"),
        (".", "There is no file"),
    ]
    for name, words in cases:
        refused(hf_chain, tmp_path / "out", words, "chat", grafted, "is it red?", "--image", tmp_path / name)
    refused(
        hf_chain,
        tmp_path / "out",
        "this cannot be asked, there are 0 images for 1 <image> placeholders",
        "chat",
        grafted,
        "is <image> red?",
    )
    question = ["is it red? " * 400, "--image", tmp_path / "whole.png"]
    refused(hf_chain, tmp_path / "out", r"has \d+ tokens, but the model takes 512", "chat", grafted, *question)
