"""Chains on photographs that grow from trunks, and the twins that they are measured by.

    OMP_NUM_THREADS=1 python benchmarks/photograph_trunks.py [--settings classes captions] [--seeds 0] [--arms …]

`classes` is classification of all 100,000 images of Tiny ImageNet, `captions` retrieval on Flickr8k with five captions
an image; both from ../shared/data. Killed anywhere, the same command goes on. After every run its ledger is copied to
docs/benchmarks/photograph_<setting>/ledgers; the page of a setting is what `hf-chain compare` makes of all ledgers
there, also of seeds that were run elsewhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from families import ROOT, keep_ledger, twin_curve, write_comparison
from hf_chain.cli import exit_cleanly
from hf_chain.methods.chain.recipe import recipe_class
from hf_chain.methods.chain.runner import run

TITLES = {"classes": "Tiny ImageNet, 200 classes", "captions": "Flickr8k, five captions an image"}
SCHEDULE = (
    "A stable rate, and a branch of 15 % that is delivered; the rate falls with the width by one rule. Made by "
    "`python benchmarks/photograph_trunks.py`."
)
DATA = "../shared/data"
TRAINING = {
    "per_device_train_batch_size": 256,
    "learning_rate": 2e-3,
    "weight_decay": 0.05,
    "feature_loss_weight": 0,
    "trunk_decay": 0.15,
    "logging_steps": 50,
    "save_steps": 500,
}
RECIPES: dict[str, dict[str, Any]] = {
    "classes": {
        "task": "classification",
        "family": "vit",
        "data": {
            "source": "parquet",
            "data_files": {
                "train": [f"{DATA}/tiny-imagenet/train-*", f"{DATA}/tiny-imagenet-more/train-*"],
                "validation": f"{DATA}/tiny-imagenet/validation-*",
            },
            "label_column": "label",
            "augmentation": {"crop_scale": [0.5, 1.0], "horizontal_flip": True},
            "keep_decoded": True,
        },
        "model": {"image_size": 64, "patch_size": 16, "head_size": 16},
        "training": TRAINING,
        "rates": {"width_power": 0.5, "base_width": 64},
    },
    "captions": {
        "family": "clip",
        "data": {
            "source": f"{DATA}/flickr8k",
            "caption_column": "captions",
            "captions_per_image": 5,
            "augmentation": {"crop_scale": [0.5, 1.0]},
            "keep_decoded": True,
        },
        "tokenizer": {"vocab_size": 2000},
        "model": {"image_size": 96, "patch_size": 16, "max_text_tokens": 32, "projection_dim": 64, "head_size": 32},
        "training": TRAINING | {"learning_rate": 1e-3, "weight_decay": 0.1},
        "rates": {"width_power": 0.5, "base_width": 64},
    },
}


def tower(width: int, layers: int) -> dict[str, int]:
    """Size of a tower as recipes give it."""
    return {"hidden_size": width, "num_hidden_layers": layers}


def towers(width: int, text_width: int) -> dict[str, Any]:
    """Sizes of both towers of a CLIP."""
    return {"vision": tower(width, 3), "text": tower(text_width, 2)}


ARMS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "classes": {
        "twin-32": twin_curve("w32", tower(32, 4), (1, 2, 4, 8, 16, 32)),
        "twin-64": twin_curve("w64", tower(64, 4), (1, 2, 4, 8, 16)),
        "twin-128": twin_curve("w128", tower(128, 4), (1, 2, 4, 8)),
    },
    "captions": {
        "twin-32": twin_curve("w32", towers(32, 32), (4, 8, 16, 32)),
        "twin-64": twin_curve("w64", towers(64, 64), (4, 8, 16, 32)),
        "twin-128": twin_curve("w128", towers(128, 96), (4, 8, 16)),
    },
}


def main() -> None:
    """Runs the arms of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", help="Some of them; all by default.")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "runs/photograph_trunks")
    arguments = parser.parse_args()
    for setting in arguments.settings:
        for seed in arguments.seeds:
            for arm in arguments.arms or ARMS[setting]:
                values = RECIPES[setting] | {"name": f"{setting}-{arm}-{seed}", "seed": seed}
                values |= {"members": ARMS[setting][arm], "output_dir": str(arguments.output_dir)}
                page = ROOT / f"docs/benchmarks/photograph_{setting}"
                keep_ledger(run(recipe_class(values).model_validate(values)), page)
                introduction = f"# Chains on photographs: {TITLES[setting]}\n\n{SCHEDULE}"
                write_comparison(page, introduction, sorted(page.glob("ledgers/*")))


if __name__ == "__main__":
    exit_cleanly(main)
