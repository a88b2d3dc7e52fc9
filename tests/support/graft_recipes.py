"""Recipes of grafts that take seconds, and folders of the models that they join."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from transformers import LlamaConfig, LlamaForCausalLM

from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.methods.graft.plan import GraftPlan
from hf_chain.methods.graft.planning import plan_graft
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.methods.graft.runner import run_graft
from hf_chain.models.grafted_vlm import from_parts
from support.chat_models import chat_tokenizer
from support.grafted_parts import image_processor, tiny_tower

LAYERS = 6
SCENES = {"train": 48, "validation": 6, "test": 4, "compositional": 4, "image_size": 32}
CHAIN: dict[str, Any] = {
    "name": "chain",
    "model": {"image_size": 32, "patch_size": 8, "max_text_tokens": 16, "projection_dim": 16, "head_size": 16},
    "tokenizer": {"vocab_size": 520},
    "data": {"source": "scenes", "scenes": SCENES},
    "members": [
        {
            "name": "a",
            "vision": {"hidden_size": 32, "num_hidden_layers": 2},
            "text": {"hidden_size": 32, "num_hidden_layers": 1},
            "epochs": 1,
        }
    ],
    "training": {"per_device_train_batch_size": 8, "disable_tqdm": True},
    "evaluation": {"max_samples": 8},
}
"""A chain of one member, which is the encoder."""


def tiny_graft_values(folder: Path, **changes: Any) -> dict[str, Any]:
    """A whole graft: a new target of five layers, an encoder of a chain, three stages and a baseline of one.

    Args:
        folder (`Path`): where runs go, and where the chain's recipe is written.
        changes: values at dotted places, with `__` for the dots.
    """
    (folder / "chain.yaml").write_text(yaml.safe_dump(CHAIN), encoding="utf-8")
    quick = {"per_device_train_batch_size": 8, "bf16": False, "disable_tqdm": True, "logging_steps": 1}
    values: dict[str, Any] = {
        "name": "tiny",
        "output_dir": str(folder / "runs"),
        "target": {
            "new": {
                "hidden_size": 32,
                "num_hidden_layers": 5,
                "head_size": 16,
                "vocab_size": 500,
                "training": quick | {"learning_rate": 1e-3},
            },
            "attn_implementation": "eager",
        },
        "encoder": {"chain": "chain.yaml"},
        "surrogate": {"calibration": {"data": "text", "samples": 8, "translator_samples": 16, "batch_size": 8}},
        "data": {
            "images": {"source": "scenes", "scenes": SCENES},
            "text": {"source": "scenes-text", "scenes": SCENES},
        },
        "stages": [
            {
                "name": "encoder",
                "decoder": "surrogate",
                "parts": {"adapter": 1e-3, "image_tokens": 1e-3, "encoder.last:1": 1e-3},
            },
            {"name": "graft", "decoder": "target"},
            {
                "name": "decoder",
                "decoder": "target",
                "parts": {"adapter": 1e-3, "decoder": 1e-3},
                "share": 0.4,
                "epochs": 1.9,
            },
        ],
        "baseline": [{"name": "full", "decoder": "target", "parts": {"adapter": 1e-3, "decoder": 1e-3}}],
        "training": quick,
        "evaluation": {"max_samples": 4, "max_new_tokens": 4},
    }
    for place, value in changes.items():
        section: Any = values
        *parents, last = [int(part) if part.isdigit() else part for part in place.split("__")]
        for key in parents:
            section = section[key] if isinstance(key, int) else section.setdefault(key, {})
        section[last] = value
    return values


def planned_then_run(folder: Path, make: Callable[[Path], GraftRecipe]) -> tuple[GraftPlan, Path]:
    """The plan of a recipe, made before it ran, and the folder of the run.

    Args:
        folder (`Path`): where the recipe puts its files.
        make (`Callable`): makes the recipe there.
    """
    recipe = make(folder)
    plan = plan_graft(recipe)
    return plan, run_graft(recipe)


def write_target(folder: Path, template: bool = True, **fields: Any) -> Path:
    """A random Llama of `LAYERS` layers in several shards, with a tokenizer that chats or one without a template."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    marks = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig(**({"vocab_size": 500, "max_position_embeddings": 512} | marks | shape | fields))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="40KB")
    chat_tokenizer().save_pretrained(folder)
    if not template:
        (folder / "chat_template.jinja").unlink()
    return folder


def given_graft_values(folder: Path, stages: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A graft on models that exist, which are written to the folder; `changes` as for `tiny_graft_values`."""
    write_target(folder / "target")
    for part in (tiny_tower(), image_processor()):
        part.save_pretrained(folder / "encoder")
    models = {name: {"name_or_path": str(folder / name)} for name in ("target", "encoder")}
    models["target"]["attn_implementation"] = "eager"
    return tiny_graft_values(folder, **models, surrogate__replaced="2-4", stages=stages, baseline=[], **changes)


def streamed_graft_values(folder: Path, rows: int, stages: list[dict[str, Any]]) -> dict[str, Any]:
    """A graft on models that exist, trained on a stream of a LLaVA file; both are written to the folder."""
    write_target(folder / "target")
    for part in (tiny_tower(), image_processor()):
        part.save_pretrained(folder / "encoder")
    Image.new("RGB", (20, 16), "red").save(folder / "red.png")
    talks = [[("human", f"<image>\nwhat is number {n}?"), ("gpt", f"it is {n}")] for n in range(rows)]
    found = [{"image": "red.png", "conversations": [{"from": w, "value": v} for w, v in talk]} for talk in talks]
    (folder / "train.json").write_text(json.dumps(found))
    (folder / "validation.json").write_text(json.dumps(found[:6]))
    files = {"train": str(folder / "train.json"), "validation": str(folder / "validation.json")}
    return tiny_graft_values(
        folder,
        target={"name_or_path": str(folder / "target")},
        encoder={"name_or_path": str(folder / "encoder")},
        surrogate={"replaced": "2-4", "calibration": {"samples": 6, "translator_samples": 12, "batch_size": 6}},
        data={"images": {"source": files["train"], "data_files": files, "streaming": True, "max_train_samples": rows}},
        stages=stages,
        baseline=[],
    )


def write_grafted(folder: Path, target: Path, **options: Any) -> Path:
    """An untrained vision-language model on a surrogate of the target."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        decoder = build_surrogate(target, "2-4")
        model, processor = from_parts(tiny_tower(), decoder, chat_tokenizer(), image_processor(), **options)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
