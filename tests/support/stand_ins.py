"""What snippets name and a reader brings: models, data and pictures, tiny ones here, and recipes made short."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, Image, Sequence, Value
from PIL import Image as Pillow
from transformers import CLIPConfig, CLIPModel

from hf_chain.data import build_processor, train_tokenizer
from hf_chain.runs.recipe_file import parse_values
from support.chat_models import chat_tokenizer, tiny_language_model
from support.hub_server import HubServer
from support.hub_store import Blob, Repo

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")
LAYERS = 28
"""Of Llama-3.2-3B, whose layers 16 to 26 a page replaces."""
PEERS = Path(__file__).resolve().parents[1] / "models" / "peers"
"""Checkpoints of other libraries."""
ORGANISATIONS = ("you", "user", "openai", "meta-llama")
"""Whose names the pages use on the Hub."""


def write_stand_ins(folder: Path, conversations: int = 100) -> None:
    """Writes the folders and files that pages name and do not make themselves; the published recipes want thousands of
    conversations.
    """
    _write_birds(folder / "path" / "to" / "birds")
    _write_llama(folder / "my-llama")
    shutil.copytree(PEERS / "open_clip", folder / "my-open-clip")
    _write_instructions(folder / "my_instructions.json", conversations)
    Pillow.new("RGB", (64, 48), "red").save(folder / "photo.png")
    (folder / "texts.txt").write_text("\n".join(_sentences()), encoding="utf-8")


def fill_hub(hub: HubServer, folder: Path) -> None:
    """Puts models of the shapes that matter on a local Hub, under the names of published ones."""
    _write_llama(folder / "llama")
    _write_clip(folder / "clip")
    put(hub, "meta-llama/Llama-3.2-3B-Instruct", folder / "llama")
    put(hub, "openai/clip-vit-large-patch14-336", folder / "clip")


def put(hub: HubServer, repo_id: str, folder: Path) -> None:
    """Makes a model repository of a folder."""
    repo = hub.repos["models"][repo_id] = Repo(repo_id)
    files = [path for path in folder.iterdir() if path.is_file()]
    repo.commit("a stand-in", {path.name: Blob(path.read_bytes(), path.suffix == ".safetensors") for path in files})


def shorten_recipes(folder: Path) -> None:
    """Makes the recipes of the demos and of the birds a matter of seconds; models of the demos keep their shapes."""
    for name in ("scenes", "scenes_encoder_short"):
        _change(folder / "examples" / "recipes" / f"{name}.yaml", _short_chain)
    _change(folder / "examples" / "recipes" / "stories.yaml", _short_stories)
    _change(folder / "examples" / "recipes" / "graft_scenes.yaml", _short_graft)
    _change(folder / "examples" / "recipes" / "graft_llama3.2_3b.yaml", _short_published_graft)
    _change(folder / "birds.yaml", _short_birds)


def _change(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = parse_values(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _short_chain(values: dict[str, Any]) -> None:
    values["data"]["scenes"] = {"train": 256, "validation": 24, "test": 24, "compositional": 24}
    for member in values["members"]:
        member["epochs"] = 1


def _short_stories(values: dict[str, Any]) -> None:
    values["data"]["stories"] = {"train": 100, "validation": 8, "test": 8, "compositional": 8}
    for member in values["members"]:
        member["epochs"] = 0.5


def _short_birds(values: dict[str, Any]) -> None:
    values["model"] |= {"image_size": 32, "max_text_tokens": 16}
    values["tokenizer"] = {"vocab_size": 600}
    values["training"]["per_device_train_batch_size"] = 64
    for member in values["members"]:
        member["epochs"] = 1
        for tower in ("vision", "text"):
            member[tower]["num_hidden_layers"] = 1


def _short_graft(values: dict[str, Any]) -> None:
    sizes = {"validation": 8, "test": 8, "compositional": 8}
    for name, rows in {"images": 48, "text": 96}.items():
        values["data"][name]["scenes"] = sizes | {"train": rows}
    values["surrogate"]["calibration"] |= {"samples": 16, "translator_samples": 32}
    values["target"]["new"]["epochs"] = 0.2
    values["evaluation"]["max_samples"] = 8


def _short_published_graft(values: dict[str, Any]) -> None:
    values["surrogate"]["calibration"] |= {"samples": 16, "translator_samples": 32}
    values["training"]["dataloader_num_workers"] = 0
    values["evaluation"]["max_samples"] = 4


def _sentences() -> list[str]:
    return [f"a {one} bird sits beside a {other} one" for one in COLOURS for other in COLOURS] * 8


def _write_birds(folder: Path) -> None:
    """Pictures with a list of captions each, in parquet files."""
    folder.mkdir(parents=True)
    for split, rows in {"train": 128, "validation": 16}.items():
        colours = [COLOURS[row % len(COLOURS)] for row in range(rows)]
        pictures = [Pillow.new("RGB", (40, 40), colour) for colour in colours]
        captions = [
            [f"a {colour} bird, number {row}", f"bird {row} is {colour}"] for row, colour in enumerate(colours)
        ]
        data = Dataset.from_dict({"image": pictures, "captions": captions})
        data = data.cast_column("image", Image()).cast_column("captions", Sequence(Value("string")))
        data.to_parquet(str(folder / f"{split}.parquet"))


def _write_llama(folder: Path) -> None:
    tokenizer = chat_tokenizer()
    tiny_language_model(vocab_size=len(tokenizer), num_hidden_layers=LAYERS).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_clip(folder: Path) -> None:
    tokenizer = train_tokenizer(_sentences(), vocab_size=600, max_length=16)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8, "num_attention_heads": 2}
    marks = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = tower | marks | {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    vision = tower | {"image_size": 28, "patch_size": 14}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    build_processor(tokenizer, 28).save_pretrained(folder)


def _write_instructions(path: Path, conversations: int) -> None:
    """A file in LLaVA's format, with its pictures beside it."""
    rows = []
    for number in range(conversations):
        colour = COLOURS[number % len(COLOURS)]
        Pillow.new("RGB", (28, 28), colour).save(path.parent / f"bird-{number}.png")
        talk = [("human", "<image>\nWhich colour is the bird?"), ("gpt", f"It is {colour}.")]
        turns = [{"from": speaker, "value": value} for speaker, value in talk]
        rows.append({"id": str(number), "image": f"bird-{number}.png", "conversations": turns})
    path.write_text(json.dumps(rows), encoding="utf-8")
