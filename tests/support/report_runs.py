"""Runs as the runner leaves them: a ledger written by the real `Ledger`, and training logs."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from hf_chain.runs.ledger import Ledger

SHAPES = {"tiny": (96, 4, 96, 4), "small": (192, 6, 128, 4), "base": (288, 8, 192, 6)}
PARAMETERS = {"tiny": 1_204_321, "small": 4_730_112, "base": 13_180_865}
MACS = {"tiny": 61_000_000, "small": 262_000_000, "base": 741_000_000}
EPOCHS = {"tiny": 24, "small": 8, "base": 6}
SAMPLES = 25_000
EVALUATION = 3_000
"""Images of the evaluation split."""
TOP1 = {"tiny": (0.0052, 0.118), "small": (0.1178, 0.162), "base": (0.1612, 0.194)}
ALONE_TOP1 = {"tiny": (0.0052, 0.118), "small": (0.0049, 0.149), "base": (0.0051, 0.171)}


def write_run(
    run_dir: Path, members: tuple[str, ...] = tuple(SHAPES), independent: bool = False, finished: bool = True
) -> Path:
    """Writes a run whose `members` are trained; the rest of the family is only planned."""
    ledger = Ledger(run_dir)
    environment = {
        "versions": {"hf-chain": "0.1.0", "torch": "2.13.0+cpu"},
        "hardware": "cpu, 2 cores",
        "processes": 1,
    }
    ledger.append("run_started", recipe=recipe(run_dir.name, independent), plan=plan(), environment=environment)
    predecessor = None
    for index, name in enumerate(members):
        parent, epochs = (None, EPOCHS["tiny"]) if independent else (predecessor, EPOCHS[name])
        size = {"parameters": PARAMETERS[name], "macs_per_sample": MACS[name], "epochs": epochs}
        ledger.append("started", name, index=index, parent=parent, operator="exact" if parent else None, **size)
        before, after = (_metrics(top1) for top1 in (ALONE_TOP1 if independent else TOP1)[name])
        if parent:
            ledger.append("grown", name, growth_error={"image": 3.1e-7, "text": 2.4e-7})
        ledger.append("evaluated_before", name, metrics_before={"validation": before})
        costs = training_macs(name, epochs, parent)
        seconds = costs["total"] / 6e10
        ledger.append(
            "trained", name, training_macs=costs, seconds=seconds, images_per_second=SAMPLES * epochs / seconds
        )
        evaluation = 2 * EVALUATION * MACS[name]
        ledger.append("evaluated", name, metrics_after={"validation": after}, evaluation_macs=evaluation)
        folder = run_dir / f"{index + 1:02d}-{name}"
        folder.mkdir()
        log = training_log(
            costs["total"], start=5.0 if parent is None else 4.2 - index / 2, teacher=parent is not None
        )
        (folder / "training_log.json").write_text(json.dumps(log))
        ledger.append("saved", name, folder=folder.name, weights_sha256="0" * 64)
        predecessor = name
    if finished:
        ledger.append("run_finished")
    return run_dir


def recipe(name: str, independent: bool = False) -> dict[str, Any]:
    """A recipe as the ledger keeps it."""
    members = [
        {
            "name": member,
            "vision": {"hidden_size": width, "num_hidden_layers": layers},
            "text": {"hidden_size": text_width, "num_hidden_layers": text_layers},
            "epochs": EPOCHS[member],
        }
        for member, (width, layers, text_width, text_layers) in SHAPES.items()
    ]
    return {
        "name": name,
        "seed": 0,
        "data": {"name_or_path": "shared/data/tiny-imagenet", "captions": 2},
        "model": {"image_size": 64, "patch_size": 8, "max_text_tokens": 24, "projection_dim": 192, "head_size": 48},
        "members": members,
        "operator": "exact",
        "independent": independent,
        "training": {"learning_rate": 1e-3, "per_device_train_batch_size": 256, "bf16": True},
    }


def plan() -> dict[str, Any]:
    """What `hf-chain plan --json` prints, as far as the report reads it."""
    members = [
        {
            "name": name,
            "parameters": PARAMETERS[name],
            "macs_per_sample": MACS[name],
            "epochs": EPOCHS[name],
            "independent_training_macs": 3 * MACS[name] * SAMPLES * EPOCHS["tiny"],
        }
        for name in SHAPES
    ]
    return {"members": members, "baseline_epochs": EPOCHS["tiny"], "family_ratio": 3.1}


def training_macs(name: str, epochs: int, parent: str | None) -> dict[str, int]:
    """Three forwards of the student and one of the teacher for every sample."""
    student = 3 * MACS[name] * SAMPLES * epochs
    teacher = MACS[parent] * SAMPLES * epochs if parent else 0
    return {"student": student, "teacher": teacher, "total": student + teacher}


def training_log(macs: int, start: float, teacher: bool, steps: int = 400) -> list[dict[str, float]]:
    """A noisy falling loss; the last entry is the summary `Trainer` adds, without a loss of its own."""
    noise = random.Random(start)
    log: list[dict[str, float]] = []
    for step in range(10, 10 * steps + 1, 10):
        progress = step / (10 * steps)
        loss = 2.2 + (start - 2.2) * math.exp(-3 * progress) + noise.gauss(0, 0.09)
        feature = 0.08 + 0.3 * progress * (1 - progress) + noise.gauss(0, 0.01) if teacher else 0.0
        entry = {"step": step, "loss": loss + feature, "contrastive_loss": loss, "feature_loss": feature}
        log.append(entry | {"macs": round(macs * progress)})
    return [*log, {"step": 10 * steps, "train_runtime": 1234.5, "macs": macs}]


def _metrics(top1: float) -> dict[str, float]:
    metrics = {"zero_shot_top1": top1, "zero_shot_top5": min(2.6 * top1, 1.0)}
    for way, factor in (("image_to_text", 0.7), ("text_to_image", 0.6)):
        metrics |= {f"{way}_r{k}": min(top1 * factor * k**0.5, 1.0) for k in (1, 5, 10)}
    return metrics
