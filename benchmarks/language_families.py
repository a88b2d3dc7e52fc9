"""Families of three, five and seven Llamas on books, the twins that they are measured by, and a forecast of them.

    OMP_NUM_THREADS=1 python benchmarks/language_families.py [--seeds 0] [--arms twins three …]

Every arm is a run of examples/recipes/books_trunk.yaml with other members, evaluated on a million held-out tokens.
Killed anywhere, the same command goes on. After every run its ledger is copied to
docs/benchmarks/language_families/ledgers; docs/benchmarks/language_families.md, .json and .png are what
`hf-chain compare` makes of all ledgers there, also of seeds that were run elsewhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from families import ROOT, keep_ledger, stage, twin_curve, write_comparison
from hf_chain.cli import exit_cleanly
from hf_chain.cost.table import markdown_table
from hf_chain.methods.chain.recipe import recipe_class
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import read_family
from hf_chain.runs.recipe_file import read_values
from language_trunks import RECIPE, shape

PAGE = ROOT / "docs/benchmarks/language_families"
UNIT = 0.05
"""Epochs of a million tokens."""
TWINS = {
    (32, 2): (1, 2, 4, 8, 16),
    (48, 2): (1, 2, 4, 8),
    (48, 3): (1, 2, 4),
    (64, 3): (1, 2, 4, 8),
    (80, 3): (1, 2, 4),
    (96, 4): (1, 2, 4),
    (128, 4): (1, 2, 4),
}
"""Width and blocks of every size to millions of tokens at which its curve has a point."""


FAMILIES = {
    "three": {(32, 2): 2.361, (64, 3): 3.887, (128, 4): 2.478},
    "five": {(32, 2): 1.273, (48, 2): 1.262, (64, 3): 2.255, (96, 4): 1.622, (128, 4): 4.765},
    "seven": {
        (32, 2): 1.273,
        (48, 2): 0.827,
        (48, 3): 1.301,
        (64, 3): 1.19,
        (80, 3): 2.031,
        (96, 4): 1.841,
        (128, 4): 4.147,
    },
}
"""Millions of tokens of each member, as `hf-chain plan --curves` proposed from the twins of seed 0."""
FORECASTS = {
    "three": (3.474, 2.963, 2.796),
    "five": (3.75, 3.343, 3.028, 2.894, 2.73),
    "seven": (3.75, 3.435, 3.202, 3.076, 2.939, 2.85, 2.731),
}
"""What it said that they would reach."""


def name_of(size: tuple[int, int]) -> str:
    """Of the members of a size."""
    return "w{}x{}".format(*size)


def family(schedule: dict[tuple[int, int], float]) -> list[dict[str, Any]]:
    """A chain, and its last member but one trained on for as many MACs as the last one cost: the control."""
    members: list[dict[str, Any]] = []
    for size, millions in schedule.items():
        members.append(stage(name_of(size), shape(*size), UNIT * millions, members[-1] if members else None))
    before, last = list(schedule)[-2:]
    longer = members[-1]["epochs"] * MACS[last] / MACS[before]
    total = members[-2]["epochs"] + longer
    return [*members, stage(f"{name_of(before)}-on", shape(*before), longer, members[-2], total)]


MACS = {(64, 3): 1.01, (96, 4): 2.57, (128, 4): 4.23}
"""10¹² of a million tokens, of sizes that take part in controls."""
ARMS: dict[str, list[dict[str, Any]]] = {
    f"twin-{width}x{layers}": twin_curve(
        f"w{width}x{layers}", shape(width, layers), [UNIT * millions for millions in points]
    )
    for (width, layers), points in TWINS.items()
} | {name: family(schedule) for name, schedule in FAMILIES.items()}


def main() -> None:
    """Runs the arms of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="Some of them; all by default.")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "runs/language_families")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for arm in arguments.arms:
            keep_ledger(run_arm(arm, seed, arguments.output_dir), PAGE)
            write_page()


def run_arm(arm: str, seed: int, output: Path) -> Path:
    """Runs an arm, or what is left of it, and returns its folder.

    Args:
        arm (`str`): one of `ARMS`.
        seed (`int`): of weights, order and choice of books; the arms of a seed share the tokenizer of the first.
        output (`Path`): folder of all runs.
    """
    values = read_values(RECIPE, ("evaluation.max_samples=4096",))
    values |= {"members": ARMS[arm], "name": f"{arm}-{seed}", "seed": seed, "output_dir": str(output)}
    first = output / f"{next(iter(ARMS))}-{seed}" / "processor"
    if first.exists() and first.parent.name != values["name"]:
        values["tokenizer"] = {"name_or_path": str(first)}
    return run(recipe_class(values).model_validate(values))


INTRODUCTION = """# Families of language models

Chains of Llamas of 49 thousand to 1.12 million parameters on public-domain books, grown from trunks, and
each size alone. A million held-out tokens of other authors. A stable rate, and a branch of 15 % that is delivered; the
rate falls with the width by one rule, for twins and chains alike. How long each member is trained is what `hf-chain
plan --curves` proposed from the twins of seed 0, before anything had grown. Made by
`python benchmarks/language_families.py`.
"""


def write_page() -> None:
    """Writes the page from all ledgers that were kept."""
    ledgers = sorted(PAGE.glob("ledgers/*"))
    write_comparison(PAGE, INTRODUCTION, ledgers, [_forecasts(ledgers)])


def _forecasts(ledgers: list[Path]) -> str:
    """What the planner said that members would reach, and what they did."""
    rows = []
    for ledger in ledgers:
        arm, _, seed = ledger.name.rpartition("-")
        if arm not in FAMILIES:
            continue
        record = read_family(ledger)
        for size, said in zip(FAMILIES[arm], FORECASTS[arm], strict=True):
            reached = record.member(name_of(size)).metrics_after.get("validation", {}).get("nats_per_token")
            if reached is not None:
                rows.append(
                    [arm, seed, "{} × {}".format(*size), f"{said:.3f}", f"{reached:.3f}", f"{reached - said:+.3f}"]
                )
    header = ["family", "seed", "size", "forecast", "reached", "off by"]
    return f"## What was forecast\n\n{markdown_table(header, rows)}" if rows else ""


if __name__ == "__main__":
    exit_cleanly(main)
