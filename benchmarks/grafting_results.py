"""Numbers and plot of the grafting benchmark, from the ledgers of its runs and what its models were asked."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from families import shown_recipe
from grafting_captions import caption_numbers, caption_pictures, captions_of
from grafting_page import BASELINE, METRIC, WAYS, Captioned, Row, Shown, page
from grafting_pictures import contact_sheet, may_be_shown
from grafting_questions import metrics_of
from hf_chain.cost import human
from hf_chain.cost.table import saving_words
from hf_chain.files import write_json, write_text
from hf_chain.methods.graft.record import SURROGATE, GraftRecord, StageRecord, graft_record
from hf_chain.methods.graft.report.summary import GraftSummary, summarize_graft
from hf_chain.runs.environment import describe_environment
from hf_chain.runs.ledger import read_family

COLOURS = {
    "ours": "#2563eb",
    "straight": "#059669",
    "lora": "#0891b2",
    "published": "#d97706",
    "baseline": "#6b7280",
    "shortened": "#9333ea",
}


def write_results(recipe: Path, family: str, runs: Path, target: Path) -> None:
    """Writes table, numbers and plots of all finished runs of a recipe.

    Args:
        recipe (`Path`): the recipe.
        family (`str`): its name, which begins the names of its runs.
        runs (`Path`): folder of the runs.
        target (`Path`): folder that the results go to.
    """
    grafts = {
        (way, int(folder.name.rpartition("-")[2])): graft_record(read_family(folder))
        for way in WAYS
        for folder in sorted(runs.glob(f"{family}-{way}-*"))
        if (folder / "ledger.jsonl").exists()
    }
    rows = [row for (way, seed), graft in grafts.items() for row in _rows(way, seed, graft)]
    if not rows:
        return
    _share_of_baseline(rows)
    findings = list(_findings(rows))
    first = summarize_graft(next(iter(grafts.values())).family)
    target.mkdir(parents=True, exist_ok=True)
    name = recipe.stem
    numbers = {
        "environment": describe_environment(),
        "recipe": shown_recipe(first.record),
        "findings": findings,
        "steps": rows,
    }
    write_json(target / f"{name}.json", numbers)
    write_text(target / f"{name}.md", page(name, rows, findings, first, _shown(first, name, family, runs, target)))
    _plot(rows, target / f"{name}.png")
    trajectory = first.record.run_dir / "report" / "trajectory.png"
    if trajectory.exists():
        shutil.copy(trajectory, target / f"{name}_trajectory.png")


def _shown(first: GraftSummary, name: str, family: str, runs: Path, target: Path) -> Shown:
    """Captions of the first run and a sheet of all pictures that its page talks about: beside the page where that may
    show them, and else in the folder of the runs.
    """
    run_dir, recipe = first.record.run_dir, first.record.recipe
    found = [(first.graft.step_title(step), captions_of(run_dir, step)) for step in first.graft.steps]
    said = {title: captions for title, captions in found if captions}
    splits = next(iter(said.values()), {})
    captioned = {
        split: Captioned(
            {title: captions[split] for title, captions in said.items()}, caption_pictures(run_dir, split)
        )
        for split in splits
    }
    pictures = {n: example.pictures[0] for n, example in enumerate(first.examples, start=1) if example.pictures}
    described = (picture for one in captioned.values() for picture in one.pictures)
    pictures |= dict(enumerate(described, start=len(first.examples) + 1))
    if not pictures:
        return Shown(captioned, None, False)
    used = {*recipe["evaluation"]["data"], *(name for stage in recipe["stages"] for name in stage["data"])}
    ours = may_be_shown([recipe["data"][name]["source"] for name in used])
    sheet = target / f"{name}_examples.png" if ours else runs / f"{family}-examples.png"
    contact_sheet(pictures, sheet)
    return Shown(captioned, sheet, ours)


def _rows(way: str, seed: int, graft: GraftRecord) -> Iterator[Row]:
    for step in graft.steps:
        metrics = metrics_of(graft.family.run_dir, step)
        if step.spent is None or metrics is None:
            continue
        captions = caption_numbers(captions_of(graft.family.run_dir, step))
        yield {
            **({"captions": captions} if captions else {}),
            "way": "baseline" if step.side == "baseline" else way,
            "seed": seed,
            "step": "full-decoder baseline" if way in ("shortened", "lora") else graft.step_title(step),
            "kind": _kind(step),
            "accuracy": {split: found[METRIC] for split, found in metrics.items()},
            "metrics": metrics,
            "macs": step.spent,
            "seconds": step.seconds_spent,
        }


def _kind(step: StageRecord) -> str:
    if step.side == "baseline" or step.decoder == SURROGATE:
        return step.side if step.side == "baseline" else SURROGATE
    return "decoder" if step.trains_decoder else "grafted"


def _share_of_baseline(rows: list[Row]) -> None:
    whole = {row["seed"]: row["macs"] for row in rows if row["way"] == "baseline"}
    for row in rows:
        row["share_of_baseline"] = row["macs"] / whole[row["seed"]] if row["seed"] in whole else None


def _findings(rows: list[Row]) -> Iterator[str]:
    """Differences that the benchmark is about, on every evaluated split: mean over the seeds, and each."""
    for way, name in WAYS.items():
        of = {(row["kind"], row["seed"]): row for row in rows if row["way"] in (way, "baseline")}
        for better, worse, words in (("grafted", SURROGATE, "surrogate"), ("decoder", "baseline", "baseline")):
            seeds = sorted(seed for kind, seed in of if kind == better and (worse, seed) in of)
            for split in of[better, seeds[0]]["accuracy"] if seeds else ():
                gains = [
                    100 * (of[better, seed]["accuracy"][split] - of[worse, seed]["accuracy"][split]) for seed in seeds
                ]
                each = ", ".join(f"{gain:+.1f}" for gain in gains)
                step = of[better, seeds[0]]["step"]
                yield f"{name}, {split}: {step} against the {words} {statistics.mean(gains):+.1f} points ({each})"
        shares = [row["share_of_baseline"] for (kind, _), row in of.items() if kind == "decoder"]
        if shares and None not in shares:
            yield f"{name} cost {saving_words(1 - statistics.mean(shares))} than the baseline in MACs"


def _plot(rows: list[Row], path: Path) -> None:
    """Every model of every seed: accuracy against the MACs it took."""
    split = next(iter(rows[0]["accuracy"]))
    figure, axes = plt.subplots(figsize=(8, 4.8), dpi=150)
    for way, colour in COLOURS.items():
        of = [row for row in rows if row["way"] == way]
        for number, seed in enumerate(sorted({row["seed"] for row in of})):
            line = [row for row in of if row["seed"] == seed]
            points = [(row["macs"], 100 * row["accuracy"][split]) for row in line]
            label = None if number else WAYS.get(way, BASELINE)
            axes.plot(*zip(*points, strict=True), "o-", color=colour, alpha=0.8, label=label)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda macs, _: human(macs) if macs else "0")
    axes.set_xlabel("MACs up to this model, translator, calibration and evaluations included")
    axes.set_ylabel(f"answers right on {split}, %")
    axes.set_title("Surrogate, grafted, and with the decoder trained, one line a seed")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
