"""What makes the exact start pay: the second member of a family trained after many kinds of growth.

    python benchmarks/growth_variants.py [--seeds 0 1] [--variants exact copy …]

Every variant grows the same trained first member (that of benchmarks/acceleration.py, trained here when it is not
there) and trains the second member as the recipe says. Killed anywhere, the same command goes on. Results, losing
variants included, are written after every variant to docs/benchmarks/growth.{md,json,png}.
"""

from __future__ import annotations

import argparse
import json
import statistics
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from transformers import CLIPConfig

import hf_chain.growth.exact as exact_rules
from families import ROOT, machine_line, run_variant, shown_recipe
from hf_chain.cli import exit_cleanly
from hf_chain.cost import human
from hf_chain.families import Family, Stream
from hf_chain.files import write_json, write_text
from hf_chain.growth import width
from hf_chain.growth.pad import Padded, PaddedBehindNorm
from hf_chain.growth.width import Tiled
from hf_chain.runs.ledger import FamilyRecord, read_family

SMALL = "members.small.training"
VARIANTS: dict[str, list[str]] = {
    "exact": [],
    "exact, learning rate ×4": [f"{SMALL}.learning_rate=1e-3"],
    "exact, learning rate ×2": [f"{SMALL}.learning_rate=5e-4"],
    "exact, learning rate ×½": [f"{SMALL}.learning_rate=1.25e-4"],
    "exact, warm-up 20 %": [f"{SMALL}.warmup_steps=0.2"],
    "exact, no feature loss": [f"{SMALL}.feature_loss_weight=0"],
    "exact, feature loss to 0 (cosine)": [f"{SMALL}.feature_loss_schedule=cosine"],
    "exact, feature loss in the first half": [f"{SMALL}.feature_loss_until=0.5"],
    "exact, symmetric copies": [],
    "exact, padding for tiling": [],
    "copy": ["operator=copy"],
    "copy, learning rate ×4": ["operator=copy", f"{SMALL}.learning_rate=1e-3"],
    "copy, learning rate ×2": ["operator=copy", f"{SMALL}.learning_rate=5e-4"],
    "copy, no feature loss": ["operator=copy", f"{SMALL}.feature_loss_weight=0"],
    "copy_fused, learning rate ×4": ["operator=copy_fused", f"{SMALL}.learning_rate=1e-3"],
    "random, learning rate ×4": ["operator=random", f"{SMALL}.learning_rate=1e-3"],
}
"""Name to what it changes in the recipe."""

SPLIT, METRIC = "validation", "zero_shot_top1"


def main() -> None:
    """Runs all variants of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "examples/recipes/tiny_imagenet_cpu.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--first_member", type=Path, default=Path("runs/acceleration"))
    parser.add_argument("--output_dir", type=Path, default=Path("runs/growth"))
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        common = [f"seed={seed}", f"output_dir={arguments.output_dir}"]
        first = arguments.first_member / f"exact-{seed}"
        if not (first / "01-tiny").exists():
            run_variant(arguments.recipe, f"first-{seed}", common, members=1)
            first = arguments.output_dir / f"first-{seed}"
        for name in arguments.variants:
            with RULES.get(name, nullcontext)():
                slug = name.translate(str.maketrans({" ": "-", ",": "", "×": "x", "½": "0.5", "%": ""}))
                slug = slug.translate(str.maketrans("", "", "()"))
                run_variant(
                    arguments.recipe,
                    f"{slug}-{seed}",
                    common + VARIANTS[name],
                    first_member_of=first,
                    members=2,
                )
                write_json(arguments.output_dir / f"{slug}-{seed}" / "variant.json", {"variant": name, "seed": seed})
            _write_results(arguments.output_dir)


def _padded(family: Family, stream: Stream, old: CLIPConfig, new: CLIPConfig) -> type[Tiled | Padded]:
    """The width rule of a stream, with padding where the width is a multiple as well."""
    if stream.first_norm and stream.width_of(old) != stream.width_of(new):
        return PaddedBehindNorm
    return ORIGINAL_RULE(family, stream, old, new)


ORIGINAL_RULE = exact_rules.width_rule
RULES = {
    "exact, symmetric copies": lambda: patch.object(width, "SYMMETRY_NOISE", 0.0),
    "exact, padding for tiling": lambda: patch.object(exact_rules, "width_rule", _padded),
}
"""Variants that change a rule of the operator instead of the recipe."""


def _write_results(runs: Path) -> None:

    rows: list[dict[str, Any]] = []
    family: FamilyRecord | None = None
    for marker in sorted(runs.glob("*/variant.json")):
        family = read_family(marker.parent)
        small = family.member("small")
        rows.append(
            json.loads(marker.read_text(encoding="utf-8"))
            | {
                "growth_error": small.growth_error,
                "before": small.metrics_before[SPLIT][METRIC],
                "after": small.metrics_after[SPLIT][METRIC],
                "first_member": family.member("tiny").metrics_after[SPLIT][METRIC],
                "loss": _last_loss(marker.parent / small.folder / "training_log.json"),
                "training_macs": small.training_macs["total"],
            }
        )
    if family is None:
        return
    target = ROOT / "docs/benchmarks"
    target.mkdir(parents=True, exist_ok=True)
    write_json(
        target / "growth.json", {"environment": family.environment, "recipe": shown_recipe(family), "rows": rows}
    )
    write_text(target / "growth.md", _markdown(rows, family))
    _plot(rows, target / "growth.png")


def _last_loss(log: Path) -> float:
    """Mean contrastive loss over the last tenth of the training."""

    losses = [e["contrastive_loss"] for e in json.loads(log.read_text()) if "contrastive_loss" in e]
    return statistics.mean(losses[-max(1, len(losses) // 10) :])


def _markdown(rows: list[dict[str, Any]], family: FamilyRecord) -> str:
    environment = family.environment
    lines = [
        "# What makes the exact start pay",
        "",
        "The second member of `examples/recipes/tiny_imagenet_cpu.yaml` after different kinds of growth from the same "
        "first member; top-1 on the validation photographs right after growth and after training, mean "
        "over the seeds. On 5,000 images one standard error is about 0.55 points. Made by "
        "`python benchmarks/growth_variants.py`.",
        "",
        "| variant | seeds | after growth | after training | loss at the end | MACs |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in VARIANTS:
        group = [row for row in rows if row["variant"] == name]
        if group:
            mean = {
                key: statistics.mean(row[key] for row in group) for key in ("before", "after", "loss", "training_macs")
            }
            lines.append(
                f"| {name} | {len(group)} | {100 * mean['before']:.1f} % | {100 * mean['after']:.1f} % "
                f"| {mean['loss']:.3f} | {human(mean['training_macs'])} |"
            )
    first = statistics.mean(row["first_member"] for row in rows)
    lines += [
        "",
        f"The first member has {100 * first:.1f} %.",
        "",
        "![Accuracy after growth and after training](growth.png)",
        "",
        machine_line(environment),
        "",
    ]
    return "\n".join(lines)


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    names = [name for name in reversed(VARIANTS) if any(row["variant"] == name for row in rows)]
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.36 * len(names)), dpi=150)
    for height, name in enumerate(names):
        for row in (row for row in rows if row["variant"] == name):
            before, after = 100 * row["before"], 100 * row["after"]
            axes.plot([before, after], [height, height], color="#cbd5e1", zorder=1)
            axes.plot(before, height, "o", color="#d97706", zorder=2)
            axes.plot(after, height, "o", color="#2563eb", zorder=2)
    first = 100 * statistics.mean(row["first_member"] for row in rows)
    axes.axvline(first, color="#6b7280", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("zero-shot top-1 on validation, %")
    axes.set_title("right after growth (orange) and after training (blue); dashed: the first member", fontsize=10)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    exit_cleanly(main)
