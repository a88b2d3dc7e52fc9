"""Chains of language models that grow from trunks, and the twins that they are measured by.

    OMP_NUM_THREADS=1 python benchmarks/language_trunks.py [--seeds 0] [--arms twin-s early …] [--scale cpu]

Every arm is a run of examples/recipes/books_trunk.yaml with other members. Killed anywhere, the same command goes on.
After every run its ledger is copied to docs/benchmarks/language_trunks/ledgers; docs/benchmarks/language_trunks.md,
.json and .png are what `hf-chain compare` makes of all ledgers there, also of seeds that were run elsewhere.

`--scale gpu` takes larger Llamas in bfloat16, about 12 minutes on an H200, and adds what share of its peak they reach;
`--scale tiny` tries all arms in minutes. Their pages are written to the folder of the runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from families import ROOT, keep_ledger, write_comparison
from hf_chain.cli import exit_cleanly
from hf_chain.commands.compare import compare_runs
from hf_chain.cost.table import markdown_table
from hf_chain.methods.chain.comparison.compare import Comparison
from hf_chain.methods.chain.comparison.table import cost, quality, times
from hf_chain.methods.chain.recipe import recipe_class
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import read_family
from hf_chain.runs.recipe_file import read_values

RECIPE = ROOT / "examples/recipes/books_trunk.yaml"
PAGE = ROOT / "docs/benchmarks/language_trunks"


@dataclass(frozen=True)
class Scale:
    """How large the arms are.

    Args:
        small, large (`dict`): the two sizes.
        unit (`float`): epochs that arms count in; a million tokens on a CPU.
        overrides (`tuple[str, ...]`): what else differs from the recipe.
    """

    small: dict[str, int]
    large: dict[str, int]
    unit: float
    overrides: tuple[str, ...] = field(default=())


def shape(width: int, layers: int) -> dict[str, int]:
    """Sizes of a Llama as recipes give them."""
    return {"hidden_size": width, "num_hidden_layers": layers}


SCALES = {
    "cpu": Scale(shape(32, 2), shape(64, 3), 0.05),
    "gpu": Scale(
        shape(384, 6),
        shape(768, 12),
        0.1,
        (
            "tokenizer.vocab_size=4096",
            "data.row_tokens=512",
            "model.max_position_embeddings=512",
            "model.head_size=64",
            "model.attn_implementation=sdpa",
            "training.bf16=true",
            "training.per_device_train_batch_size=64",
        ),
    ),
    "tiny": Scale(shape(16, 1), shape(32, 1), 0.5, ("data.max_train_samples=160", "evaluation.max_samples=20")),
}
ON, WARM, TEACHER = {"trunk_decay": 0.3}, {"warmup_steps": 0.1}, {"feature_loss_weight": 1.0}
COSINE = {"trunk_decay": None, "lr_scheduler_type": "cosine"}
Member = Callable[..., dict[str, Any]]


def arms(small: Member, large: Member) -> dict[str, dict[str, Any]]:
    """Name of an arm to what its recipe changes.

    `twin-s` is the twin of the larger size; `early` grows from a first member after one and two units, `late` after
    eight. First members, trained on, are the smaller size's twin. The others are the rows of rule (f): what trunk,
    state, exactness and teacher give, at as many tokens of the larger size; and a schedule that the planner proposed.

    Args:
        small, large (`Callable`): make a member of a name, units, a predecessor and further training fields.
    """
    first, by_cosine = small("x1", 1), small("x1", 1, **COSINE)

    def after(before: dict[str, Any], name: str, operator: str = "exact", **training: Any) -> list[dict[str, Any]]:
        return [before, large(name, 1, "x1", **training) | {"operator": operator}]

    return {
        "twin-s": {
            "members": [
                large("s1", 1),
                large("s2", 1, "s1", **ON),
                large("s4", 2, "s2", **ON),
                large("s8", 4, "s4", **ON),
            ]
        },
        "early": {
            "members": [
                first,
                large("x1-s", 1, "x1"),
                small("x2", 1, "x1", **ON),
                large("x2-s", 1, "x2"),
                large("x1-s2", 1, "x1-s", **ON),
            ]
        },
        "late": {
            "members": [
                small("xs", 8),
                large("s-1", 1, "xs"),
                large("s-2", 1, "s-1", **ON),
                small("xs16", 8, "xs", **ON),
                large("s-4", 2, "s-2", **ON),
            ]
        },
        "fresh": {"optimizer_state": False, "members": after(first, "s-fresh", **WARM)},
        "warm": {"members": after(first, "s-warm", new_weights_warmup=0.1)},
        "taught": {"members": after(first, "s-taught", **TEACHER, feature_loss_until=0.3)},
        "merged": {"members": after(first, "s-merged", trunk_merge=5)},
        "copied": {"members": after(first, "s-copied", "copy", **WARM)},
        "cosine": {"members": after(by_cosine, "s-cosine", **COSINE, **WARM)},
        "paper": {"members": after(by_cosine, "s-paper", "copy", **COSINE, **WARM, **TEACHER)},
        "teacher": {"members": after(first, "s-random", "random", **WARM, **TEACHER)},
        # What `hf-chain plan --curves` proposed for 4T MACs from `twin-s` and `early` of seed 0.
        "proposal": {"members": [small("xs", 4.476), large("s", 2.698, "xs")]},
    }


def arms_of(scale: Scale) -> dict[str, dict[str, Any]]:
    """The arms in the sizes of a scale.

    A member that begins from scratch warms up. The branch of a trunk that is trained on is a larger share of its own
    steps, so that it is the same of them all.
    """

    def of(size: dict[str, int]) -> Member:
        def member(name: str, units: float, grown_from: str | None = None, **training: Any) -> dict[str, Any]:
            warmup = {"warmup_steps": 100} if grown_from is None else {}
            own = {"name": name, **size, "epochs": round(scale.unit * units, 5), "grown_from": grown_from}
            return own | {"training": warmup | training}

        return member

    return arms(of(scale.small), of(scale.large))


def main() -> None:
    """Runs the arms of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--scale", choices=SCALES, default="cpu")
    parser.add_argument("--arms", nargs="+", choices=arms_of(SCALES["cpu"]), help="Some of them; all by default.")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/language_trunks"))
    parser.add_argument("--peak_tflops", type=float, help="Of the device, for the share that is used.")
    arguments = parser.parse_args()
    page = PAGE if arguments.scale == "cpu" else arguments.output_dir / f"language_trunks_{arguments.scale}"
    for seed in arguments.seeds:
        for arm in arguments.arms or arms_of(SCALES["cpu"]):
            keep_ledger(run_arm(arm, seed, SCALES[arguments.scale], arguments.output_dir), page)
            write_page(page, arguments.peak_tflops)


def run_arm(arm: str, seed: int, scale: Scale, output: Path) -> Path:
    """Runs an arm, or what is left of it, and returns its folder.

    Args:
        arm (`str`): one of `arms`.
        seed (`int`): of weights, order and choice of books; the arms of a seed share the tokenizer of the first.
        scale (`Scale`): how large it is.
        output (`Path`): folder of all runs.
    """
    changes = arms_of(scale)[arm] | {"name": f"{arm}-{seed}", "seed": seed, "output_dir": str(output)}
    values = read_values(RECIPE, scale.overrides) | changes
    if arm != "twin-s" and (first := output / f"twin-s-{seed}" / "processor").exists():
        values["tokenizer"] = {"name_or_path": str(first)}
    return run(recipe_class(values).model_validate(values))


SCHEDULES = ("twin-s", "early", "late", "proposal")
"""Arms that are shown whole."""
ROWS = {
    "fresh": "the same, AdamW begun anew, with a warm-up",
    "warm": "the same as the first, new weights warmed up",
    "taught": "the same as the first, with a teacher for 30 %",
    "merged": "the same as the first, five states merged in place of a decay",
    "copied": "trunk, leading block copied, AdamW begun anew, with a warm-up",
    "cosine": "cosine instead of a trunk, exact growth, warm-up",
    "paper": "the paper's rule: copy, cosine, teacher",
    "teacher": "no growth, teacher",
}
"""The others, in a table."""
INTRODUCTION = """# Language models that grow from trunks

Two sizes of Llama on public-domain books; the held-out tokens are of other authors. Both have the same schedule: a
stable rate, and a branch of 15 % that is delivered; the rate falls with the width by one rule. Nothing else was tuned.
`twin-s` is the larger size alone; the smaller one's twin is its members, trained on. In units of a million tokens,
`early` grows after one and after two, `late` after eight. `proposal` is what `hf-chain plan --curves` proposed for 4T
MACs, from `twin-s` and `early`. Made by `python benchmarks/language_trunks.py`.
"""


def write_page(page: Path, peak_tflops: float | None = None) -> None:
    """Writes the page, its figures and its plot from all ledgers that were kept.

    Args:
        page (`Path`): without its suffix; the ledgers are in the folder of that name.
        peak_tflops (`float`, *optional*): of the device, in 10¹² floating-point operations a second.
    """
    ledgers = sorted(page.glob("ledgers/*"))
    of_schedules = [ledger for ledger in ledgers if ledger.name.rpartition("-")[0] in SCHEDULES]
    # The rows have one seed, and so has what they are compared with.
    seed = ledgers[0].name.rpartition("-")[2]
    of_a_seed = compare_runs([ledger for ledger in ledgers if ledger.name.rpartition("-")[2] == seed])
    write_comparison(page, INTRODUCTION, of_schedules, [_rows(of_a_seed), speed(ledgers, peak_tflops)])


def _rows(found: Comparison) -> str:
    """What one change does to the first grown member, after as many tokens."""
    grown = [(chain, member) for chain in found.chains for member in chain.members if member.kind == "grown"]
    same = {arm: next((one for chain, one in grown if chain.name.startswith(arm)), None) for arm in ("early", *ROWS)}
    rows = [
        [ROWS.get(arm, "trunk, exact growth, AdamW's state grown"), quality(found.metric, one.quality)]
        + [cost(one.cost["macs"]), cost(one.twin["macs"]), times(one.speed_up["macs"])]
        for arm, one in same.items()
        if one is not None
    ]
    header = ["after one unit of the larger size", "quality", "MACs", "twin's MACs", "speed-up"]
    return f"## One thing changed, one seed\n\n{markdown_table(header, rows)}" if len(rows) > 1 else ""


def speed(ledgers: list[Path], peak_tflops: float | None) -> str:
    """Throughput of the longest training of each size, and the share of the peak that it used."""
    members = [member for ledger in ledgers for member in read_family(ledger).members if member.tokens_per_second]
    longest = {member.parameters: member for member in sorted(members, key=lambda member: member.samples)}
    lines = []
    for parameters, member in sorted(longest.items()):
        tflops = 2e-12 * member.training_macs["total"] / member.seconds
        share = f", {100 * tflops / peak_tflops:.1f} % of the peak" if peak_tflops else ""
        lines.append(
            f"{parameters:,} parameters: {member.tokens_per_second:,.0f} tokens/s, {tflops:.3g} TFLOP/s{share}."
        )
    return " ".join(lines)


if __name__ == "__main__":
    exit_cleanly(main)
