"""Tables and plots of the acceleration benchmark, from the ledgers of its runs."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from families import machine_line, shown_recipe
from hf_chain.cost import human
from hf_chain.files import write_json, write_text
from hf_chain.runs.environment import describe_environment
from hf_chain.runs.ledger import FamilyRecord, MemberRecord, read_family

ARMS = ("independent", "copy", "exact")
SPLIT, METRIC = "validation", "zero_shot_top1"
COLOURS = {"independent": "#6b7280", "copy": "#d97706", "exact": "#2563eb"}


def write_results(runs: Path, target: Path) -> None:
    """Writes acceleration.md, acceleration.json and acceleration.png for the members that are finished."""
    families = {
        (arm, int(folder.name.rpartition("-")[2])): read_family(folder)
        for arm in ARMS
        for folder in sorted(runs.glob(f"{arm}-*"))
        if (folder / "ledger.jsonl").exists()
    }
    rows = [_row(arm, seed, member) for (arm, seed), family in families.items() for member in _saved(family)]
    if not rows:
        return
    target.mkdir(parents=True, exist_ok=True)
    summary = _summary(rows)
    first = next(iter(families.values()))
    write_json(
        target / "acceleration.json",
        {
            "environment": describe_environment(),
            "recipe": shown_recipe(first),
            "metric": f"{SPLIT} {METRIC}",
            "summary": summary,
            "members": rows,
        },
    )
    write_text(target / "acceleration.md", _markdown(rows, summary, first))
    _plot(rows, target / "acceleration.png")


def _saved(family: FamilyRecord) -> list[MemberRecord]:
    return [member for member in family.members if member.status == "saved"]


def _row(arm: str, seed: int, member: MemberRecord) -> dict[str, Any]:
    return {
        "arm": arm,
        "seed": seed,
        "member": member.name,
        "index": member.index,
        "epochs": member.epochs,
        "accuracy_before": member.metrics_before.get(SPLIT, {}).get(METRIC),
        "accuracy": member.metrics_after[SPLIT][METRIC],
        "training_macs": member.training_macs["total"],
        "teacher_macs": member.training_macs["teacher"],
        "evaluation_macs": member.evaluation_macs,
        "hours": member.seconds / 3600,
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios over the seeds for which both the independent members and the chain are finished."""
    summary: dict[str, Any] = {}
    count = 1 + max(row["index"] for row in rows)
    for arm in ("copy", "exact"):
        seeds = [
            seed
            for seed in sorted({row["seed"] for row in rows})
            if all(len(_of(rows, name, seed)) == count for name in ("independent", arm))
        ]
        if not seeds:
            continue
        ratios = {
            key: [_total(rows, "independent", s, key) / _total(rows, arm, s, key) for s in seeds] for key in KEYS
        }
        gains = [
            chain["accuracy"] - alone["accuracy"]
            for seed in seeds
            for chain, alone in zip(_of(rows, arm, seed), _of(rows, "independent", seed), strict=True)
            if chain["index"] > 0
        ]
        summary[arm] = {
            "seeds": seeds,
            "ratio_macs": statistics.mean(ratios["macs"]),
            "ratio_hours": statistics.mean(ratios["hours"]),
            "smallest_gain": min(gains),
            "mean_gain": statistics.mean(gains),
        }
    return summary


KEYS = {"macs": ("training_macs", "evaluation_macs"), "hours": ("hours",)}


def _of(rows: list[dict[str, Any]], arm: str, seed: int) -> list[dict[str, Any]]:
    return sorted((r for r in rows if r["arm"] == arm and r["seed"] == seed), key=lambda row: row["index"])


def _total(rows: list[dict[str, Any]], arm: str, seed: int, key: str) -> float:
    return sum(row[name] for row in _of(rows, arm, seed) for name in KEYS[key])


def _markdown(rows: list[dict[str, Any]], summary: dict[str, Any], family: FamilyRecord) -> str:
    environment = family.environment
    lines = [
        "# Acceleration: chain against independent training",
        "",
        "History, November 2026: this shows that exact growth loses nothing; it does not show that a chain saves, as "
        "all of the gain is the first member's longer training, twins of eight epochs are far from their plateau, and "
        "no larger member uses its size. How chains are measured now: [Compare](../compare.md).",
        "",
        "Top-1 accuracy on the validation photographs of Tiny ImageNet (200 classes, chance 0.5 %), mean and range "
        "over the seeds. All arms have the same optimiser, data, captions and token dropping; evaluation and teacher "
        "forwards count. Twins trained alone have the recipe's `baseline_epochs` and learning rates for training from "
        "scratch; the chain's first member is trained longer, and both chains grow at a quarter of those rates. "
        "Made by `python benchmarks/acceleration.py`.",
        "",
        "| member | arm | seeds | epochs | after growth | top-1 | MACs | hours |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    members = sorted({(row["index"], row["member"]) for row in rows})
    for index, member in members:
        for arm in ARMS:
            group = [row for row in rows if row["member"] == member and row["arm"] == arm]
            if not group:
                continue
            before = [row["accuracy_before"] for row in group if index and arm != "independent"]
            lines.append(
                f"| {member} | {arm} | {', '.join(str(row['seed']) for row in group)} | {group[0]['epochs']:g} "
                f"| {_percent(before) if before else '–'} | {_percent([row['accuracy'] for row in group])} "
                f"| {human(statistics.mean(row['training_macs'] for row in group))} "
                f"| {statistics.mean(row['hours'] for row in group):.2f} |"
            )
    for arm, found in summary.items():
        lines += [
            "",
            f"**{arm}**: {found['ratio_macs']:.2f} times fewer MACs and {found['ratio_hours']:.2f} times fewer hours "
            f"than independent training (seeds {', '.join(map(str, found['seeds']))}); members after the first are "
            f"{100 * found['mean_gain']:+.1f} points against their independent twins on average, "
            f"{100 * found['smallest_gain']:+.1f} at the least.",
        ]
    lines += [
        "",
        "![Accuracy against cumulative MACs](acceleration.png)",
        "",
        machine_line(environment),
        "",
    ]
    return "\n".join(lines)


def _percent(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f} %"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f}–{100 * max(values):.1f})"


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy of every member against the MACs spent until it was finished."""
    figure, axes = plt.subplots(figsize=(8, 4.8), dpi=150)
    for arm in ARMS:
        for seed in sorted({row["seed"] for row in rows if row["arm"] == arm}):
            group = _of(rows, arm, seed)
            spent, points = 0, []
            for row in group:
                spent += row["training_macs"] + row["evaluation_macs"]
                points.append((spent, 100 * row["accuracy"]))
            label = {"independent": "each alone", "copy": "chain, copy", "exact": "chain, exact"}[arm]
            first = seed == min(row["seed"] for row in rows if row["arm"] == arm)
            axes.plot(*zip(*points, strict=True), "o-", color=COLOURS[arm], alpha=0.85, label=label if first else None)
            for (x, y), row in zip(points, group, strict=True):
                if first and (arm == "independent" or row["index"] == len(group) - 1):
                    offset = (6, -12) if arm == "independent" else (6, 6)
                    axes.annotate(row["member"], (x, y), xytext=offset, textcoords="offset points", color=COLOURS[arm])
    axes.set_xscale("log")
    axes.set_xlabel("MACs spent on the family so far (log scale)")
    axes.set_ylabel("zero-shot top-1 on validation, %")
    axes.set_title("The chain reaches more accuracy for fewer MACs" if _chain_wins(rows) else "Accuracy and cost")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _chain_wins(rows: list[dict[str, Any]]) -> bool:
    found = _summary(rows)
    return bool(found) and all(arm["smallest_gain"] >= 0 for arm in found.values())


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    write_results(Path("runs/acceleration"), here / "docs/benchmarks")
    print(json.dumps(json.loads((here / "docs/benchmarks/acceleration.json").read_text())["summary"], indent=2))
