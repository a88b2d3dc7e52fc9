"""`hf-chain convert`: folders of open_clip and timm, and stock ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, AutoTokenizer, CLIPModel, ViTForImageClassification

from hf_chain.data import build_processor, train_tokenizer
from support.command_line import Command
from support.hub_fixtures import hub  # noqa: F401
from support.hub_server import HubServer
from support.stand_ins import put

PEERS = Path(__file__).resolve().parents[1] / "models" / "peers"
FILES = {"open_clip": "open_clip_model.safetensors", "timm": "model.safetensors"}


@pytest.mark.parametrize(("peer", "stock"), [("open_clip", CLIPModel), ("timm", ViTForImageClassification)])
def test_a_checkpoint_becomes_stock_grows_and_goes_back(
    hf_chain: Command, peer: str, stock: type, tmp_path: Path
) -> None:
    there, larger, back = tmp_path / "stock", tmp_path / "larger", tmp_path / "back"
    outcome = hf_chain("convert", PEERS / peer, there)
    assert outcome.status == 0 and f"{there}: {stock.__name__}, CLIPImageProcessor" in outcome.out, outcome.err
    depth = "vision_config.num_hidden_layers" if peer == "open_clip" else "num_hidden_layers"
    assert hf_chain("grow", there, larger, "--set", f"{depth}=3").status == 0
    outcome = hf_chain("convert", larger, back, "--to", peer)
    assert outcome.status == 0 and f"{back}: {peer}'s {stock.__name__}, CLIPImageProcessor" in outcome.out, outcome.err
    small, large = load_file(PEERS / peer / FILES[peer]), load_file(back / FILES[peer])
    assert all(torch.equal(large[name], weight) for name, weight in small.items() if "blocks.1." not in name)
    assert len(large) > len(small)
    # Transformers makes a tokenizer of two words for a CLIP without one.
    assert not [path for folder in (there, larger, back) for path in folder.glob("tokenizer*")]


def test_a_tokenizer_goes_along(hf_chain: Command, tmp_path: Path) -> None:
    hf_chain("convert", PEERS / "open_clip", tmp_path / "stock")
    tokenizer = train_tokenizer(["a red bird beside a blue one"] * 8, vocab_size=600, max_length=8)
    build_processor(tokenizer, 16).save_pretrained(tmp_path / "stock")
    (tmp_path / "stock" / "manifest.json").unlink()
    for source, output, to in (("stock", "theirs", "open_clip"), ("theirs", "again", "transformers")):
        assert hf_chain("convert", tmp_path / source, tmp_path / output, "--to", to).status == 0
    assert '"hf_tokenizer_name": "."' in (tmp_path / "theirs" / "open_clip_config.json").read_text()
    assert AutoTokenizer.from_pretrained(tmp_path / "theirs").get_vocab() == tokenizer.get_vocab()
    assert AutoProcessor.from_pretrained(tmp_path / "again").tokenizer.get_vocab() == tokenizer.get_vocab()


def test_a_name_on_the_hub_is_read(hf_chain: Command, hub: HubServer, tmp_path: Path) -> None:  # noqa: F811
    put(hub, "openai/tiny-vit", PEERS / "timm")
    outcome = hf_chain("convert", "openai/tiny-vit", tmp_path / "stock")
    assert outcome.status == 0, outcome.err
    assert ViTForImageClassification.from_pretrained(tmp_path / "stock").config.num_labels == 5


@pytest.mark.parametrize(
    ("source", "more", "said"),
    [
        ("timm", ["--to", "open_clip"], "cannot be loaded as a CLIPModel"),
        ("timm", ["--to", "onnx"], "--to 'onnx' is unknown: use one of transformers, open_clip, timm"),
        (".", [], "is no checkpoint of open_clip or timm (no open_clip_config.json, and no config.json that names"),
        ("nowhere", [], "There is no folder"),
    ],
)
def test_what_cannot_be_converted_is_said_in_a_line_and_leaves_nothing(
    hf_chain: Command, source: str, more: list[str], said: str, tmp_path: Path
) -> None:
    outcome = hf_chain("convert", PEERS / source, tmp_path / "out", *more)
    assert outcome.status == 1 and said in outcome.err.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_has_changed_since_it_was_written_is_refused(hf_chain: Command, tmp_path: Path) -> None:
    hf_chain("convert", PEERS / "timm", tmp_path / "stock")
    hf_chain("convert", tmp_path / "stock", tmp_path / "timm", "--to", "timm")
    (tmp_path / "timm" / "config.json").write_text((tmp_path / "timm" / "config.json").read_text() + "\n")
    outcome = hf_chain("convert", tmp_path / "timm", tmp_path / "again")
    assert outcome.status == 1 and "config.json has" in outcome.err and not (tmp_path / "again").exists()


def test_nothing_is_replaced(hf_chain: Command, tmp_path: Path) -> None:
    folder = shutil.copytree(PEERS / "timm", tmp_path / "timm")
    outcome = hf_chain("convert", PEERS / "timm", folder)
    assert outcome.status == 1 and "exists already" in outcome.err
