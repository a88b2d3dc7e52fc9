"""Two language models as a chain, and the controls that say whether the chain, or its larger member, pays.

    OMP_NUM_THREADS=1 python benchmarks/language_chain.py [--seeds 0 1]

The chain is examples/recipes/books_cpu.yaml. Every control of a seed has the chain's first member, data and schedule;
those that are given MACs get them from the ledger of the chain. Killed anywhere, the same command goes on. Results are
written after every run to docs/benchmarks/language_chain.{md,json}.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from families import ROOT, machine_line, run_variant, shown_recipe
from hf_chain.cli import exit_cleanly
from hf_chain.cost import human
from hf_chain.data import PackedTextDataset, TextSettings, load_splits, load_text_tokenizer
from hf_chain.evaluation.evaluate import spread
from hf_chain.files import write_json, write_text
from hf_chain.losses import next_token_losses
from hf_chain.runs.ledger import FamilyRecord, MemberRecord, read_family

BATCH = 16
SECOND = "members.second"
ARMS = {
    "chain": "(a) grown, with the teacher: the chain",
    "no-teacher": "(b) grown, without the teacher",
    "same-tokens": "(c) alone, for the tokens of (a)",
    "same-macs": "(d) alone, for the MACs of the whole chain",
    "trained-on": "(e) the first member trained on, for the MACs of the whole chain",
    "long": "(f) the first member's size alone, for the MACs of the whole chain",
}
"""Name of an arm to what its last member is."""
ORDER = ("chain", "trained-on", "same-macs", "same-tokens", "no-teacher", "long")
"""As they are run: what decides comes first."""
ALONE = ("same-tokens", "same-macs", "long")
"""Arms that owe nothing to the chain's first member."""


def main() -> None:
    """Runs all arms of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "examples/recipes/books_cpu.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--output_dir", type=Path, default=Path("runs/language_chain"))
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        chain: FamilyRecord | None = None
        for arm in ORDER:
            family = run_arm(arguments.recipe, arguments.output_dir, arm, seed, chain)
            chain = chain or family
            write_results(arguments.output_dir, ROOT / "docs/benchmarks")


def run_arm(recipe: Path, output: Path, arm: str, seed: int, chain: FamilyRecord | None) -> FamilyRecord:
    """Runs an arm, or what is left of it.

    Args:
        recipe (`Path`): the chain.
        output (`Path`): folder of all runs.
        arm (`str`): one of `ARMS`.
        seed (`int`): seed of weights, order and choice of books.
        chain (`FamilyRecord`, *optional*): the chain with this seed, once it has run.
    """
    common = [f"seed={seed}", f"output_dir={output}"]
    if chain is None:
        return run_variant(recipe, f"{arm}-{seed}", common)
    common.append(f"tokenizer.name_or_path={chain.run_dir / 'processor'}")
    first, second = chain.members
    whole = first.training_macs["total"] + second.training_macs["total"]
    rows = chain.recipe["data"]["max_train_samples"]

    def epochs(macs: int, member: MemberRecord) -> float:
        return macs / (member.training_macs["student"] / member.samples) / rows

    if arm == "long":
        return run_variant(
            recipe, f"{arm}-{seed}", [*common, f"members.first.epochs={epochs(whole, first)}"], members=1
        )
    shapes = {member["name"]: member for member in chain.recipe["members"]}
    of_first = [f"{SECOND}.{field}={shapes['first'][field]}" for field in ("hidden_size", "num_hidden_layers")]
    untaught = [
        f"{SECOND}.training={{learning_rate: {shapes['second']['training']['learning_rate']}, feature_loss_weight: 0}}"
    ]
    overrides = {
        "no-teacher": untaught,
        "same-tokens": [f"baseline_epochs={second.epochs}"],
        "same-macs": [f"baseline_epochs={epochs(whole, second)}"],
        "trained-on": [*of_first, *untaught, f"{SECOND}.epochs={epochs(second.training_macs['total'], first)}"],
    }
    return run_variant(
        recipe, f"{arm}-{seed}", common + overrides[arm], independent=arm in ALONE, first_member_of=chain.run_dir
    )


def write_results(runs: Path, target: Path) -> None:
    """Writes language_chain.md and language_chain.json for the arms that are finished."""
    families = {
        (arm, int(folder.name.rpartition("-")[2])): read_family(folder)
        for arm in ARMS
        for folder in sorted(runs.glob(f"{arm}-[0-9]*"))
        if (folder / "ledger.jsonl").exists()
    }
    rows = [_row(arm, seed, family) for (arm, seed), family in families.items() if family.finished]
    if not rows:
        return
    chain = next(iter(families.values()))
    differences = _differences(rows, families)
    values = {"environment": chain.environment, "recipe": shown_recipe(chain), "rows": rows}
    write_json(target / "language_chain.json", values | {"differences": differences})
    write_text(target / "language_chain.md", _markdown(rows, differences, chain))


def _row(arm: str, seed: int, family: FamilyRecord) -> dict[str, Any]:
    first, last = family.members[0], family.members[-1]
    own, before = last.training_macs["total"], 0 if arm in ALONE else first.training_macs["total"]
    return {
        "arm": arm,
        "seed": seed,
        "parameters": last.parameters,
        "tokens": last.samples * family.recipe["data"]["row_tokens"],
        "macs": own,
        "macs_altogether": before + own,
        "before": last.metrics_before["validation"]["nats_per_token"],
        "nats_per_token": last.metrics_after["validation"]["nats_per_token"],
        "evaluated_tokens": last.metrics_trials["validation"]["nats_per_token"],
        "first_member": {"nats_per_token": first.metrics_after["validation"]["nats_per_token"]}
        | {"tokens": first.samples * family.recipe["data"]["row_tokens"], "macs": first.training_macs["total"]},
    }


QUESTIONS = {
    ("chain", "trained-on"): "Does the larger member use its size: is (a) ahead of (e), for the same MACs?",
    ("chain", "same-macs"): "Does the chain save: is (a) ahead of (d), for the same MACs?",
    ("chain", "long"): "Is a chain the better buy: is (a) ahead of (f), for the same MACs?",
    ("chain", "same-tokens"): "Does growth help: is (a) ahead of (c), for the same tokens of this member?",
    ("chain", "no-teacher"): "Does the teacher help: is (a) ahead of (b)?",
    ("same-macs", "long"): "Can this setting show anything: is size worth its MACs alone, (d) ahead of (f)?",
}
"""Two arms to what their difference answers."""


def _differences(rows: list[dict[str, Any]], families: dict[tuple[str, int], FamilyRecord]) -> list[dict[str, Any]]:
    """Nats a token of one arm less those of another, on the same rows of the same seed."""
    done, found = {(row["arm"], row["seed"]) for row in rows}, []
    for seed in sorted({row["seed"] for row in rows}):
        for (one, other), question in QUESTIONS.items():
            if {(one, seed), (other, seed)} <= done:
                ours, theirs = (row_losses(families[arm, seed]) for arm in (one, other))
                pairs = [a - b for a, b in zip(ours, theirs, strict=True)]
                error = statistics.stdev(pairs) / len(pairs) ** 0.5
                found.append(
                    {"seed": seed, "arms": [one, other], "question": question}
                    | {"difference": statistics.mean(pairs), "standard_error": error}
                )
    return found


def row_losses(family: FamilyRecord) -> list[float]:
    """Nats a token of the last member of a run on each held-out row that it was evaluated on; kept beside the run."""
    file = family.run_dir / "row_losses.json"
    if not file.exists():
        folder, recipe = family.run_dir / family.members[-1].folder, family.recipe
        settings, tokenizer = TextSettings(**recipe["data"]), load_text_tokenizer(folder)
        rows = PackedTextDataset(
            load_splits(settings, only=["validation"])["validation"], settings, tokenizer, training=False
        )
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        losses: list[float] = []
        with torch.no_grad():
            chosen = spread(len(rows), recipe["evaluation"]["max_samples"])
            for start in range(0, len(chosen), BATCH):
                ids = torch.stack([rows[number]["input_ids"] for number in chosen[start : start + BATCH]])
                losses += next_token_losses(model(input_ids=ids).logits, ids).mean(dim=1).tolist()
        write_json(file, losses)
    return json.loads(file.read_text())


def _markdown(rows: list[dict[str, Any]], differences: list[dict[str, Any]], chain: FamilyRecord) -> str:
    first, second = chain.recipe["members"][:2]
    words, row_tokens = chain.recipe["tokenizer"]["vocab_size"], chain.recipe["data"]["row_tokens"]
    lines = [
        "# A first chain of language models, with controls",
        "",
        f"Two Llamas, {_shape(first)} and {_shape(second)}, on public-domain books: rows of {row_tokens} tokens of a "
        f"BPE of {words}, which the run trains; {rows[0]['evaluated_tokens']:,} held-out tokens of books by other "
        "authors. Nothing was tuned: `examples/recipes/books_cpu.yaml` was run once as it was written first. MACs are "
        "those of training, teacher included; altogether means with the first member where one was needed. "
        "Made by `python benchmarks/language_chain.py`.",
        "",
        "| | seed | parameters | tokens of this member | MACs altogether | nats before | nats a token |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: (row["seed"], list(ARMS).index(row["arm"]))):
        if row["arm"] == "chain":
            given = row["first_member"]
            lines.append(
                f"| the first member | {row['seed']} | {human(chain.members[0].parameters)} | {given['tokens']:,} "
                f"| {human(given['macs'])} | | {given['nats_per_token']:.3f} |"
            )
        lines.append(
            f"| {ARMS[row['arm']]} | {row['seed']} | {human(row['parameters'])} | {row['tokens']:,} "
            f"| {human(row['macs_altogether'])} | {row['before']:.3f} | {row['nats_per_token']:.3f} |"
        )
    lines += [
        "",
        "## What the controls say",
        "",
        "Differences in nats a token on the same held-out rows, with the standard error over rows; below zero the "
        "first is ahead. The error says nothing of other seeds.",
        "",
        "| | seed | difference | answer |",
        "|---|---:|---:|---|",
        *(
            f"| {found['question']} | {found['seed']} | {found['difference']:+.3f} ± {found['standard_error']:.3f} "
            f"| {_answer(found)} |"
            for found in differences
        ),
        "",
        machine_line(chain.environment),
        "",
    ]
    return "\n".join(lines)


def _answer(found: dict[str, Any]) -> str:
    """Four standard errors decide."""
    if abs(found["difference"]) < 4 * found["standard_error"]:
        return "not to be told"
    return "yes" if found["difference"] < 0 else "no"


def _shape(member: dict[str, Any]) -> str:
    return f"{member['hidden_size']} × {member['num_hidden_layers']}"


if __name__ == "__main__":
    exit_cleanly(main)
