"""CPU time of `hf-chain plan`, a process of its own, by the members of the chain.

    python benchmarks/scale/plan.py [--before SOURCES]

Row 22 of docs/benchmarks/scale.md. `SOURCES` is the `src` of another checkout, such as one of commit 15e5ee6.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from results import BENCHMARKS, add_row

MEMBERS = (1, 3, 10, 30)
ROUNDS = 5


def main() -> None:
    """Measures each chain and adds the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="sources to compare with")
    arguments = parser.parse_args()
    sources = {"now": str(BENCHMARKS.parent / "src")}
    if arguments.before:
        sources["before"] = arguments.before
    curves: dict[str, dict[int, float]] = {name: {} for name in sources}
    with tempfile.TemporaryDirectory() as folder:
        for members in MEMBERS:
            recipe = write_recipe(Path(folder, f"{members}.yaml"), members)
            seconds: dict[str, list[float]] = {name: [] for name in sources}
            for number in range(ROUNDS + 1):
                for name, source in sources.items():
                    taken = plan(recipe, source)
                    if number:
                        seconds[name].append(taken)
            for name, values in seconds.items():
                curves[name][members] = statistics.median(values)
    add_row(
        22,
        f"`hf-chain plan` of a chain of {MEMBERS[-1]} members",
        "CPU s",
        "members",
        curves,
        curves["now"][MEMBERS[-1]],
        "< 1 s",
        "python benchmarks/scale/plan.py",
        before=f"{curves['before'][MEMBERS[-1]]:.3g}" if arguments.before else "",
    )


def write_recipe(path: Path, members: int) -> Path:
    """The recipe of an encoder on scenes with so many members, each a block deeper than the one before."""
    values = yaml.safe_load(
        (BENCHMARKS.parent / "examples/recipes/scenes_encoder_short.yaml").read_text(encoding="utf-8")
    )
    first = values["members"][0]
    values["members"] = [
        first
        | {"name": f"m{number}"}
        | {tower: first[tower] | {"num_hidden_layers": 2 + number} for tower in ("vision", "text")}
        for number in range(members)
    ]
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def plan(recipe: Path, source: str) -> float:
    """CPU seconds of one process, the kernel's too."""
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", "from hf_chain.cli import main; main()", "plan", str(recipe)],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": source},
    )
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime


if __name__ == "__main__":
    main()
