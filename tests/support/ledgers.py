"""Ledgers of runs that never were: members with the figures that a test computes with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_chain.runs.ledger import Ledger

SIZES = {"xs": 100, "s": 400, "m": 1600}
"""Name of a size to its parameters; a member called `s-2` has size `s`."""


@dataclass(frozen=True)
class Trained:
    """A member as a ledger has it.

    Args:
        name (`str`): Its name, which begins with its size.
        macs (`int`): Of its training.
        quality (`float`, *optional*): Its metric.
        parent (`str`, *optional*): What it has grown from.
        trunk (`int`, *optional*): MACs up to the state that others grow from.
        seconds (`float`, *optional*): By default a tenth of the MACs.
        trials (`int`): What the metric is a mean over.
        teacher (`int`): The teacher's part of the MACs.
    """

    name: str
    macs: int
    quality: float | None
    parent: str | None = None
    trunk: int | None = None
    seconds: float | None = None
    trials: int = 0
    teacher: int = 0


def write_ledger(
    folder: Path,
    *members: Trained,
    seed: int = 0,
    metric: str = "nats_per_token",
    data: dict[str, Any] | None = None,
    **recipe: Any,
) -> Path:
    """Writes the ledger of a run of language models whose members are all saved, and returns its folder."""
    ledger = Ledger(folder)
    shapes = [{"name": one.name, "hidden_size": SIZES[one.name.partition("-")[0]]} for one in members]
    values = {"name": folder.name, "task": "causal_lm", "family": "llama", "seed": seed, "members": shapes} | recipe
    plan = {"members": [{"name": one["name"], "shape": {"tower": f"{one['hidden_size']} × 2"}} for one in shapes]}
    ledger.append("run_started", recipe=values, plan=plan, environment={}, **({"data": data} if data else {}))
    for index, one in enumerate(members):
        parameters = SIZES[one.name.partition("-")[0]]
        ledger.append(
            "started", one.name, index=index, parent=one.parent, parameters=parameters, macs_per_sample=parameters
        )
        student = one.macs - one.teacher
        costs: dict[str, Any] = {"training_macs": {"student": student, "teacher": one.teacher, "total": one.macs}}
        if one.trunk is not None:
            costs["trunk"] = {"steps": 1, "training_macs": one.trunk}
        ledger.append("trained", one.name, seconds=one.macs / 10 if one.seconds is None else one.seconds, **costs)
        if one.quality is not None:
            trials = {"metrics_trials": {"validation": {metric: one.trials}}} if one.trials else {}
            ledger.append("evaluated", one.name, metrics_after={"validation": {metric: one.quality}}, **trials)
        sha = f"{folder.parent.name}-{folder.name}-{one.name}"
        ledger.append("saved", one.name, folder=f"{index + 1:02d}-{one.name}", weights_sha256=sha)
    ledger.append("run_finished")
    return folder


def write_example(folder: Path) -> list[Path]:
    """Two seeds of a chain, of the twins of its members and of a control, with figures that are made up."""
    runs = []
    for seed, luck in ((0, 0.0), (1, 0.02)):
        chain = write_ledger(
            folder / f"books-{seed}",
            Trained("xs", 2_200, 3.50 + luck, trunk=2_000),
            Trained("s", 3_300, 3.30 - luck, "xs", trunk=3_000),
            Trained("m", 5_000, 2.70 + luck, "s"),
            seed=seed,
        )
        twins = {
            "xs": [(1_100, 1_000, 4.0), (1_200, 1_000, 3.5), (2_400, 2_000, 3.4), (4_800, 4_000, 3.38)],
            "s": [(4_000, 3_500, 3.6), (12_500, 12_000, 3.0)],
            "m": [(20_000, 18_000, 2.9), (62_000, 60_000, 2.5)],
        }
        runs.append(chain)
        for size, points in twins.items():
            members: list[Trained] = []
            for number, (macs, trunk, quality) in enumerate(points, start=1):
                before = members[-1].name if members else None
                members.append(Trained(f"{size}-{number}", macs, quality + luck / number, before, trunk))
            runs.append(write_ledger(folder / f"{size}-alone-{seed}", *members, seed=seed))
        control = Trained("s-on", 6_000, 3.1 - luck / 2, str(chain / "trunks" / "02-s"))
        runs.append(write_ledger(folder / f"s-on-{seed}", control, seed=seed))
    return runs
