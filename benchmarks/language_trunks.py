"""Chains of language models that grow from trunks, and the twins that they are measured by.

    OMP_NUM_THREADS=1 python benchmarks/language_trunks.py [--seeds 0] [--arms twin-s early late …]

Every arm is a run of examples/recipes/books_trunk.yaml with other members. Killed anywhere, the same command goes on.
After every run its ledger is copied to docs/benchmarks/language_trunks/ledgers, and `hf-chain compare` writes the page
beside it from all ledgers that are there, also of seeds that were run elsewhere.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from families import ROOT
from hf_chain.cli import exit_cleanly
from hf_chain.commands.compare import compare_runs
from hf_chain.methods.chain.recipe import recipe_class
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import LEDGER_NAME
from hf_chain.runs.recipe_file import read_values

RECIPE = ROOT / "examples/recipes/books_trunk.yaml"
TARGET = ROOT / "docs/benchmarks/language_trunks"
EPOCHS_PER_MILLION = 0.05
"""Of tokens."""
XS, S = ({"hidden_size": 32, "num_hidden_layers": 2}, {"hidden_size": 64, "num_hidden_layers": 3})


def member(name: str, size: dict[str, int], millions: float, grown_from: str | None = None, **more: Any) -> Any:
    """A member, trained on so many million tokens; one that begins from scratch warms up.

    The branch of a trunk that is trained on is a larger share of its own steps, so that it is one of them all.
    """
    training = {"warmup_steps": 100} if grown_from is None else {}
    own = {"name": name, **size, "epochs": round(EPOCHS_PER_MILLION * millions, 5), "grown_from": grown_from}
    return own | {"training": training | more}


ON = {"trunk_decay": 0.3}
WARM = {"warmup_steps": 0.1}
TEACHER = {"feature_loss_weight": 1.0}
COSINE = {"trunk_decay": None, "lr_scheduler_type": "cosine"}
ARMS: dict[str, dict[str, Any]] = {
    "twin-s": {
        "members": [
            member("s1", S, 1),
            member("s2", S, 1, "s1", **ON),
            member("s4", S, 2, "s2", **ON),
            member("s8", S, 4, "s4", **ON),
        ]
    },
    "early": {
        "members": [
            member("x1", XS, 1),
            member("x1-s", S, 1, "x1"),
            member("x2", XS, 1, "x1", **ON),
            member("x2-s", S, 1, "x2"),
            member("x1-s2", S, 1, "x1-s", **ON),
        ]
    },
    "late": {
        "members": [
            member("xs", XS, 8),
            member("s-1", S, 1, "xs"),
            member("s-2", S, 1, "s-1", **ON),
            member("xs16", XS, 8, "xs", **ON),
            member("s-4", S, 2, "s-2", **ON),
        ]
    },
    # The rows of rule (f): what trunk, state, exactness and teacher give, at as many tokens of the larger size.
    "fresh": {"optimizer_state": False, "members": [member("x1", XS, 1), member("s-fresh", S, 1, "x1", **WARM)]},
    "warm": {"members": [member("x1", XS, 1), member("s-warm", S, 1, "x1", new_weights_warmup=0.1)]},
    "taught": {"members": [member("x1", XS, 1), member("s-taught", S, 1, "x1", **TEACHER, feature_loss_until=0.3)]},
    "copied": {"members": [member("x1", XS, 1), member("s-copied", S, 1, "x1", **WARM) | {"operator": "copy"}]},
    "cosine": {"members": [member("x1", XS, 1, **COSINE), member("s-cosine", S, 1, "x1", **COSINE, **WARM)]},
    "paper": {
        "members": [
            member("x1", XS, 1, **COSINE),
            member("s-paper", S, 1, "x1", **COSINE, **WARM, **TEACHER) | {"operator": "copy"},
        ]
    },
    "teacher": {
        "members": [
            member("x1", XS, 1),
            member("s-random", S, 1, "x1", **WARM, **TEACHER) | {"operator": "random"},
        ]
    },
}
"""Name of an arm to what its recipe changes. `twin-s` is the twin of the larger size; `early` grows from a first
member after one and two million tokens, `late` after eight. First members, trained on, are the smaller size's twin."""


def main() -> None:
    """Runs the arms of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--output_dir", type=Path, default=Path("runs/language_trunks"))
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for arm in arguments.arms:
            run_dir = run_arm(arm, seed, arguments.output_dir)
            keep_ledger(run_dir)
            compare_runs(sorted(TARGET.glob("ledgers/*")), output=TARGET)


def run_arm(arm: str, seed: int, output: Path) -> Path:
    """Runs an arm, or what is left of it, and returns its folder.

    Args:
        arm (`str`): one of `ARMS`.
        seed (`int`): of weights, order and choice of books; the arms of a seed share the tokenizer of the first.
        output (`Path`): folder of all runs.
    """
    values = read_values(RECIPE, []) | ARMS[arm] | {"name": f"{arm}-{seed}", "seed": seed, "output_dir": str(output)}
    first = output / f"{next(iter(ARMS))}-{seed}" / "processor"
    if arm != next(iter(ARMS)) and first.exists():
        values["tokenizer"] = {"name_or_path": str(first)}
    return run(recipe_class(values).model_validate(values))


def keep_ledger(run_dir: Path) -> None:
    """Puts the ledger of a run where the page is made from, without the place it was run in."""
    folder = TARGET / "ledgers" / run_dir.name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(run_dir / LEDGER_NAME, folder / LEDGER_NAME)


if __name__ == "__main__":
    exit_cleanly(main)
