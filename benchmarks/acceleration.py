"""Trains one family three ways (every member alone, as a chain with `copy`, as a chain with `exact`) and compares.

    python benchmarks/acceleration.py [--recipe examples/recipes/tiny_imagenet_cpu.yaml] [--seeds 0 1 2]

All arms have the same optimiser, data, captions and token dropping. The first member of the two chains is the same
training, so it is run once a seed and counted in each. Killed anywhere, the same command goes on. Results are written
after every arm to docs/benchmarks/acceleration.{md,json,png}.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from acceleration_results import write_results
from families import ROOT, run_variant
from hf_chain.cli import exit_cleanly

ARMS = {"exact": ["operator=exact"], "copy": ["operator=copy"], "independent": []}


def main() -> None:
    """Runs all arms of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "examples/recipes/tiny_imagenet_cpu.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--output_dir", default="runs/acceleration")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for arm in arguments.arms:
            first = Path(arguments.output_dir) / f"exact-{seed}"
            run_variant(
                arguments.recipe,
                f"{arm}-{seed}",
                [*ARMS[arm], f"seed={seed}", f"output_dir={arguments.output_dir}"],
                independent=arm == "independent",
                first_member_of=first if arm == "copy" and first.exists() else None,
            )
            write_results(Path(arguments.output_dir), ROOT / "docs/benchmarks")


if __name__ == "__main__":
    exit_cleanly(main)
