"""Kills a three-member run with SIGKILL at ten random moments and compares its weights with an undisturbed run's.

    python benchmarks/resume.py

Results go to docs/benchmarks/resume.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from families import ROOT

from hf_chain.cli import exit_cleanly
from hf_chain.files import weights_sha256, write_text
from hf_chain.stages.ledger import read_family

sys.path.insert(0, str(ROOT / "tests"))
from support.kills import leftovers, run_killed, run_to_the_end, seconds_of_work
from support.recipes import tiny_values, write_recipe

PAGE = """# Resume

A run of three members on the scenes (augmentation, dropped image tokens, a checkpoint every second step) is killed
with SIGKILL at {kills} random moments, its whole process group at once, and started again with the same command.
Made by `python benchmarks/resume.py`.

| kill | what the run was doing |
|---:|---|
{rows}

| member | SHA-256 of the undisturbed weights | of the killed run's | identical |
|---|---|---|---|
{members}

Partial files left behind: {left}.
"""


def main() -> None:
    """Runs both and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for name in ("whole", "killed"):
            values = tiny_values(
                Path(folder, name),
                epochs=8,
                data__augmentation={"crop_scale": [0.6, 1.0], "horizontal_flip": True},
                training__image_token_keep=0.5,
                training__save_steps=2,
            )
            runs[name] = write_recipe(Path(folder, f"{name}.yaml"), values), Path(folder, name, "tiny")
        run_to_the_end(runs["whole"][0])
        seconds = seconds_of_work(runs["whole"][1])
        hits = run_killed(*runs["killed"], arguments.kills, arguments.seed, seconds)
        members = []
        for member in read_family(runs["whole"][1]).members:
            hashes = [weights_sha256(run_dir / member.folder) for _, run_dir in runs.values()]
            same = "yes" if hashes[0] == hashes[1] else "**no**"
            members.append(f"| {member.name} | `{hashes[0][:16]}…` | `{hashes[1][:16]}…` | {same} |")
        left = len(leftovers(runs["killed"][1]))
    rows = [f"| {number} | {hit} |" for number, hit in enumerate(hits, start=1)]
    page = PAGE.format(kills=len(hits), rows="\n".join(rows), members="\n".join(members), left=left or "none")
    write_text(ROOT / "docs" / "benchmarks" / "resume.md", page)


if __name__ == "__main__":
    exit_cleanly(main)
