"""Whether a chain of every task keeps its promises on real data: two tiny members each, by the product's own commands.

    python benchmarks/paradigms.py [--tasks causal_lm masked_image] [--output_dir runs/paradigms]

Killed and resumed against uninterrupted, cached teacher against live, two processes and ZeRO-3 against one process,
and the MACs of the ledger against torch's FLOP counter. Half an hour on two CPU cores. Stopped anywhere, the same
command goes on with the check that it was at; results are written after every check to
docs/benchmarks/paradigms.{md,json}.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from families import ROOT, machine_line
from hf_chain.cli import exit_cleanly
from hf_chain.errors import HfChainError
from hf_chain.files import write_json, write_text
from hf_chain.runs.environment import describe_environment
from hf_chain.runs.ledger import FamilyRecord, read_family

DATA = "../shared/data"
SAMPLES, BATCH, PROCESSES = 128, 32, 2
EPOCHS = (1, 2)
IMAGES = {"max_train_samples": SAMPLES, "validation_split": "validation[:5%]"}
PHOTOGRAPHS = IMAGES | {"source": f"{DATA}/tiny-imagenet"}
CAPTIONED = IMAGES | {"source": f"{DATA}/flickr8k", "caption_column": "captions", "captions_per_image": 2}
BOOKS = {"source": f"{DATA}/books", "train_split": "train[:10]", "validation_split": "validation[:1]"}
PIXELS = {"image_size": 64, "patch_size": 16}
SMALL, LARGE = ({"hidden_size": 32, "num_hidden_layers": 2}, {"hidden_size": 64, "num_hidden_layers": 3})
DECODER = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
TASKS: dict[str, dict[str, Any]] = {
    "contrastive": {
        "family": "clip",
        "data": CAPTIONED,
        "tokenizer": {"vocab_size": 1000},
        "model": PIXELS | {"max_text_tokens": 24, "projection_dim": 32},
        "members": ({"vision": SMALL, "text": SMALL}, {"vision": LARGE, "text": LARGE, "projection_dim": 64}),
    },
    "sigmoid": {
        "family": "siglip",
        "data": CAPTIONED,
        "tokenizer": {"vocab_size": 1000},
        "model": {"vision": PIXELS, "text": {"max_position_embeddings": 24}},
        "members": ({"vision": SMALL, "text": SMALL}, {"vision": LARGE, "text": LARGE}),
    },
    "causal_lm": {
        "family": "llama",
        "data": BOOKS | {"max_train_samples": SAMPLES, "samples_per_epoch": SAMPLES, "row_tokens": 128},
        "tokenizer": {"vocab_size": 512},
        "model": {"tie_word_embeddings": True, "max_position_embeddings": 128},
        "members": (SMALL, LARGE),
    },
    "classification": {
        "family": "vit",
        "data": PHOTOGRAPHS | {"label_column": "label"},
        "model": PIXELS,
        "members": (SMALL, LARGE),
    },
    "masked_image": {
        "family": "vit_mae",
        "data": PHOTOGRAPHS,
        "model": PIXELS | DECODER | {"decoder_intermediate_size": 64, "norm_pix_loss": True},
        "members": (SMALL, LARGE),
    },
}
"""Task to what of its recipe is its own."""

HALF = f"training.per_device_train_batch_size={BATCH // PROCESSES}"
EXAMPLE = ["examples/chain_pretrain.py", "--config"]
ONE = ["-m", "hf_chain", "run"]
DDP = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={PROCESSES}", *EXAMPLE]
ACCELERATE = ["-m", "accelerate.commands.launch", "--config_file", "examples/accelerate_configs/zero3.yaml"]
ZERO_3 = [*ACCELERATE, "--main_process_port", "0", *EXAMPLE]
PATIENCE = 1800
"""Seconds that one command may take."""


def main() -> None:
    """Runs all checks of all tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--output_dir", type=Path, default=ROOT / "runs/paradigms")
    parser.add_argument("--count", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count:
        print(json.dumps(_count(arguments.count)))
        return
    for task in arguments.tasks:
        checks = Checks(task, arguments.output_dir.resolve() / task)
        for name, check in CHECKS.items():
            if name not in checks.results:
                started = time.monotonic()
                checks.note(name, check(checks) | {"seconds": round(time.monotonic() - started, 1)})
                write_page(arguments.output_dir, ROOT / "docs/benchmarks")


class Checks:
    """The runs of a task, and what they came to.

    Args:
        task (`str`): one of `TASKS`.
        folder (`Path`): of all its runs.
    """

    def __init__(self, task: str, folder: Path) -> None:
        self.task, self.folder, self._file = task, folder, folder / "results.json"
        self.results: dict[str, Any] = json.loads(self._file.read_text()) if self._file.exists() else {}
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(yaml.safe_dump(recipe_values(task), sort_keys=False), encoding="utf-8")

    def note(self, name: str, result: dict[str, Any]) -> None:
        """Keeps the result of a check."""
        self.results[name] = result
        write_json(self._file, self.results)

    def command(self, launcher: Sequence[str], name: str, *overrides: str) -> list[str]:
        """The command that runs the recipe into the folder `name`."""
        values = [f"output_dir={self.folder / name}", *overrides]
        # `hf-chain run` takes a flag for every value, the example one for all.
        flags = [part for value in values for part in ("--set", value)] if launcher is ONE else ["--set", *values]
        return [sys.executable, *launcher, str(self.recipe), *flags]

    def run(self, launcher: Sequence[str], name: str, *overrides: str) -> FamilyRecord:
        """Runs the recipe, or what is left of it, to the end."""
        _output(self.command(launcher, name, *overrides))
        return self.family(name)

    def family(self, name: str) -> FamilyRecord:
        """What a run came to."""
        return read_family(self.folder / name / self.task)


def recipe_values(task: str) -> dict[str, Any]:
    """The recipe of two tiny members, 4 and 8 steps."""
    own = TASKS[task]
    members = zip(("first", "second"), own["members"], EPOCHS, strict=True)
    return {
        "name": task,
        "task": task,
        **own,
        # The FLOP counter sees the products of eager attention.
        "model": own["model"] | {"head_size": 16, "attn_implementation": "eager"},
        "members": [{"name": name, **sizes, "epochs": epochs} for name, sizes, epochs in members],
        "training": {
            "per_device_train_batch_size": BATCH,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_steps": 3,
            "disable_tqdm": True,
        },
        "evaluation": {"max_samples": 64, "batch_size": 32},
    }


def _environment() -> dict[str, str]:
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | threads | {"HF_HUB_OFFLINE": "1"}


def _reference(checks: Checks) -> dict[str, Any]:
    """The run that others are compared with: one process, undisturbed, a live teacher."""
    family = checks.run(ONE, "one")
    return {
        "steps": [len(_losses(member, family)) for member in family.members],
        "metrics": [next(iter(member.metrics_after.values())) for member in family.members],
        "sha256": _hashes(family),
    }


def _output(command: Sequence[str]) -> str:
    """The standard output of a command.

    Raises:
        HfChainError: with the end of what it said, where it fails.
    """
    result = subprocess.run(
        command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if result.returncode:
        raise HfChainError(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}")
    return result.stdout


def _killed(checks: Checks) -> dict[str, Any]:
    """Kills the second member once it has a checkpoint, and compares the weights that both end with."""
    output = checks.folder / "killed"
    shutil.rmtree(output, ignore_errors=True)
    command = checks.command(ONE, output.name)
    with (checks.folder / "killed.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(), stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + PATIENCE
        checkpoints = output / checks.task / "checkpoints" / "02-second"
        while process.poll() is None and time.monotonic() < deadline and not list(checkpoints.glob("*/manifest*")):
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != -signal.SIGKILL or checks.family(output.name).member("second").status == "saved":
        raise HfChainError(f"{checks.task} ended before it was killed: see {log.name}")
    left = sorted(path.name for path in checkpoints.glob("checkpoint-*"))
    resumed, expected = (_hashes(family) for family in (checks.run(ONE, output.name), checks.family("one")))
    return {"equal": resumed == expected, "checkpoints": left, "sha256": resumed, "uninterrupted_sha256": expected}


def _cached(checks: Checks) -> dict[str, Any]:
    """A cache of the teacher's features against the live teacher."""
    try:
        family = checks.run(ONE, "cached", "cache_teacher_features=true")
    except HfChainError as error:
        line = next((line for line in str(error).splitlines() if line.startswith("hf-chain: ")), "")
        if "sees another mask" not in line:
            raise
        return {"refused": line.partition(f"{checks.recipe}: ")[2]}
    return _compared(family, checks.family("one"))


def _two_processes(checks: Checks) -> dict[str, Any]:
    """Two processes, by torchrun and gloo, with half of the batch each."""
    return _compared(checks.run(DDP, "ddp", HALF), checks.family("one"))


def _zero_3(checks: Checks) -> dict[str, Any]:
    """Two processes under ZeRO-3, by accelerate."""
    return _compared(checks.run(ZERO_3, "zero3", HALF), checks.family("one"))


def _counted(checks: Checks) -> dict[str, Any]:
    """The MACs of all training steps of each member, as the plan, the ledger and torch's FLOP counter have them.

    The counter has the same products made by other kernels, so weights may differ in their last bits.
    """
    shutil.rmtree(checks.folder / "counted", ignore_errors=True)
    recipe = recipe_values(checks.task) | {"output_dir": str(checks.folder / "counted")}
    file = checks.folder / "counted.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    counted: dict[str, int] = json.loads(_output([sys.executable, __file__, "--count", str(file)]).splitlines()[-1])
    family = checks.family("counted")
    ledger = {member.name: member.training_macs["total"] for member in family.members}
    return {
        "planned": {row["name"]: row["student_macs"] + row["teacher_macs"] for row in family.plan["members"]},
        "ledger": ledger,
        "flop_counter": counted,
        "ledger_by_flop_counter": {name: ledger[name] / counted[name] for name in ledger},
    }


def _count(recipe: Path) -> dict[str, int]:
    """Runs a recipe in this process; member to MACs of all its training steps, live teacher included."""
    from torch.utils.flop_counter import FlopCounterMode

    from hf_chain.methods.chain.recipe import load_recipe
    from hf_chain.methods.chain.runner import run
    from hf_chain.trainer import ChainTrainer

    macs: dict[str, int] = {}
    step = ChainTrainer.training_step

    def counted(trainer: ChainTrainer, *arguments: Any, **options: Any) -> Any:
        with FlopCounterMode(display=False) as counter:
            loss = step(trainer, *arguments, **options)
        name = Path(trainer.args.output_dir).name.partition("-")[2]
        macs[name] = macs.get(name, 0) + counter.get_total_flops() // 2
        return loss

    ChainTrainer.training_step = counted
    run(load_recipe(recipe))
    return macs


CHECKS: dict[str, Callable[[Checks], dict[str, Any]]] = {
    "reference": _reference,
    "killed": _killed,
    "cached": _cached,
    "ddp": _two_processes,
    "zero3": _zero_3,
    "macs": _counted,
}


def _hashes(family: FamilyRecord) -> dict[str, str]:
    return {member.name: member.weights_sha256 for member in family.members}


def _losses(member: Any, family: FamilyRecord) -> list[float]:
    log = json.loads((family.run_dir / member.folder / "training_log.json").read_text())
    return [entry["loss"] for entry in log if "loss" in entry]


def _compared(found: FamilyRecord, expected: FamilyRecord) -> dict[str, Any]:
    """The largest relative difference of a step's loss, by member."""
    differences = {}
    for ours, theirs in zip(found.members, expected.members, strict=True):
        pairs = zip(_losses(ours, found), _losses(theirs, expected), strict=True)
        differences[ours.name] = max(abs(one - other) / abs(other) for one, other in pairs)
    return {"largest_relative_difference": differences}


def write_page(runs: Path, target: Path) -> None:
    """Writes paradigms.md and paradigms.json for the checks that are done."""
    found = {task: runs / task / "results.json" for task in TASKS}
    results = {task: json.loads(file.read_text()) for task, file in found.items() if file.exists()}
    environment = describe_environment() | {"threads": 1}  # each run has one, whatever this process has
    recipes = {task: recipe_values(task) for task in results}
    write_json(target / "paradigms.json", {"environment": environment, "recipes": recipes, "results": results})
    lines = [
        "# Every task on real data",
        "",
        f"A chain of two tiny members for every task, {' and '.join(str(int(SAMPLES // BATCH * e)) for e in EPOCHS)} "
        f"steps of {BATCH} samples in float32, seed 0, run by `hf-chain run`, `torchrun` and `accelerate launch` on "
        f"{SAMPLES} samples of real data. Each way is compared with one process that ran undisturbed. These chains "
        "are too short to learn much: what is measured is whether what holds for a chain holds for this task. Made by "
        "`python benchmarks/paradigms.py`.",
        "",
        "| task | family | data | killed, resumed: same bits | cached teacher | two processes | ZeRO-3, two processes "
        "| MACs by FLOP counter |",
        "|---|---|---|---|---:|---:|---:|---:|",
        *(_line(task, result) for task, result in results.items()),
        "",
        "- **Killed, resumed**: SIGKILL once the second member has a checkpoint, and the same command again. Whether "
        "the SHA-256 of the saved weights of both members are those of the run that nobody stopped.",
        "- **Cached teacher, two processes, ZeRO-3**: the largest relative difference of the loss of any step of "
        "either member. Two processes have half of the batch each, by gloo.",
        "- **MACs**: what the ledger has for the training of the first and of the second member, live teacher "
        "included, over what `torch.utils.flop_counter` counts in all its training "
        "steps. The plan has what the ledger has.",
        *_refusals(results),
        "",
        machine_line(environment),
        "",
    ]
    write_text(target / "paradigms.md", "\n".join(lines))


def _line(task: str, result: dict[str, Any]) -> str:
    data = Path(TASKS[task]["data"]["source"]).name
    same = {True: "yes", False: "**no**", None: ""}[result.get("killed", {}).get("equal")]
    cells = [task, TASKS[task]["family"], data, same]
    for check in ("cached", "ddp", "zero3"):
        differences = result.get(check, {}).get("largest_relative_difference")
        refused = "refused" if result.get(check, {}).get("refused") else ""
        cells.append(_rounded(max(differences.values())) if differences else refused)
    ratios = result.get("macs", {}).get("ledger_by_flop_counter", {})
    return f"| {' | '.join([*cells, ' / '.join(f'{ratio:.4f}' for ratio in ratios.values())])} |"


def _rounded(difference: float) -> str:
    return f"{difference:.1e}" if difference else "0"


def _refusals(results: dict[str, Any]) -> list[str]:
    refused = {
        task: result["cached"]["refused"] for task, result in results.items() if "refused" in result.get("cached", {})
    }
    return [f"- **Refused** for {task}: “{line}”." for task, line in refused.items()]


if __name__ == "__main__":
    exit_cleanly(main)
