"""The numbers of a report: everything tables, plots and page show is derived here, once, from the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_chain.runs.ledger import CONTINUED, LEDGER_NAME, FamilyRecord, MemberRecord, read_family
from hf_chain.tasks import find_paradigm


@dataclass(frozen=True)
class MemberSummary:
    """One member as the report shows it; MACs are multiply-accumulate operations."""

    record: MemberRecord
    shape: Mapping[str, str] = field(default_factory=dict)
    """Name of each tower to its width × layers."""
    alone_macs: int | None = None
    """Cost of training and evaluating it independently: that of its measured twin, else the planned one."""
    twin: MemberRecord | None = None
    """The same member trained independently, from a baseline run."""

    @property
    def name(self) -> str:
        """Name of the member."""
        return self.record.name

    @property
    def trained(self) -> bool:
        """Whether its training is over, so that its cost is known."""
        return self.record.counted

    @property
    def chain_macs(self) -> int:
        """What it cost in the chain: student, teacher and evaluations."""
        return _cost(self.record)

    @property
    def share_of_alone(self) -> float | None:
        """Its cost in the chain divided by its cost alone."""
        return self.chain_macs / self.alone_macs if self.trained and self.alone_macs else None


@dataclass(frozen=True)
class FamilySummary:
    """A run as the report shows it."""

    record: FamilyRecord
    members: list[MemberSummary]
    primary: tuple[str, str] | None = None
    """Split and name of the metric that sums a member up; `None` before the first evaluation."""
    baseline: FamilyRecord | None = None
    continued: MemberRecord | None = None
    """The first member trained on for the MACs of its successors, where that control was run."""
    trained: list[MemberSummary] = field(init=False)
    """The members whose training is over."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "trained", [member for member in self.members if member.trained])

    @property
    def records(self) -> dict[str, MemberRecord]:
        """What the ledger knows of each member, by name."""
        return {member.name: member.record for member in self.members}

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.record.recipe.get("name") or self.record.run_dir.resolve().name)

    @property
    def chain_macs(self) -> int:
        """Cost of the trained members in the chain."""
        return sum(member.chain_macs for member in self.trained)

    @property
    def independent_macs(self) -> int | None:
        """Cost of training the same members independently, when it is known of all of them."""
        costs = [member.alone_macs for member in self.trained]
        return sum(cost or 0 for cost in costs) if costs and all(costs) else None

    @property
    def acceleration_ratio(self) -> float | None:
        """Independent cost divided by the chain's; `None` as long as there is no successor to gain anything."""
        if len(self.trained) < 2:
            return None
        return self.independent_macs / self.chain_macs if self.independent_macs and self.chain_macs else None

    @property
    def planned_ratio(self) -> float | None:
        """The acceleration ratio the plan promises for the whole family."""
        return None if self.record.recipe.get("independent") else self.record.plan.get("family_ratio")

    @property
    def alone_is_measured(self) -> bool:
        """Whether the independent cost of every trained member comes from a baseline run and not from the plan."""
        return bool(self.trained) and all(member.twin for member in self.trained)

    @property
    def seconds(self) -> float:
        """Measured wall-clock seconds of training, all members together."""
        return sum(member.record.seconds for member in self.members)

    def before(self, member: MemberSummary | MemberRecord) -> float | None:
        """The primary metric right after growth."""
        return self._primary(_record(member).metrics_before)

    def after(self, member: MemberSummary | MemberRecord) -> float | None:
        """The primary metric after training."""
        return self._primary(_record(member).metrics_after)

    def _primary(self, metrics: dict[str, dict[str, float]]) -> float | None:
        return metrics.get(self.primary[0], {}).get(self.primary[1]) if self.primary else None


def summarize(run_dir: Path, baseline: Path | None = None) -> FamilySummary:
    """Reads a run, and the run in which its members were trained independently, into the numbers of a report.

    Args:
        run_dir (`Path`): Folder of the run; it may be unfinished.
        baseline (`Path`, *optional*): Folder of a run whose members have the same names and were trained alone.

    Raises:
        HfChainError: when a folder has no ledger or a damaged one.
    """
    record = read_family(run_dir)
    twins = read_family(baseline) if baseline is not None else None
    planned = {row["name"]: row for row in record.plan.get("members", [])}
    known = {member.name: member for member in record.members}
    records = [known.get(name) or _planned(name, row) for name, row in planned.items()]
    records += [member for member in record.members if member.name not in planned]
    found = {twin.name: twin for twin in twins.members if twin.training_macs} if twins else {}
    members = [_summary(record.recipe, member, planned.get(member.name, {}), found) for member in records]
    primary = _primary_metric(record.recipe, records)
    return FamilySummary(record, members, primary, twins, _continued(record.run_dir))


def _continued(run_dir: Path) -> MemberRecord | None:
    """The only member of the run beside it that trains its first member on, once that is saved."""
    control = run_dir.resolve().with_name(run_dir.resolve().name + CONTINUED)
    if not (control / LEDGER_NAME).is_file():
        return None
    return next((member for member in read_family(control).members if member.saved), None)


def _summary(
    recipe: dict[str, Any], record: MemberRecord, plan: dict[str, Any], twins: dict[str, MemberRecord]
) -> MemberSummary:
    twin = twins.get(record.name)
    if twin:
        alone = _cost(twin)
    elif recipe.get("independent") or "independent_training_macs" not in plan:
        alone = None
    else:
        # The runner evaluates a member before and after training, whether it is grown or trained alone.
        alone = plan["independent_training_macs"] + record.evaluation_macs - record.until_macs
    return MemberSummary(record, plan.get("shape") or _towers(recipe, record.name), alone, twin)


def _planned(name: str, plan: dict[str, Any]) -> MemberRecord:
    """A member the run has not come to."""
    return MemberRecord(
        name, parameters=plan["parameters"], macs_per_sample=plan["macs_per_sample"], epochs=plan["epochs"]
    )


def _cost(record: MemberRecord) -> int:
    return record.training_macs.get("total", 0) + record.evaluation_macs


def _record(member: MemberSummary | MemberRecord) -> MemberRecord:
    return member.record if isinstance(member, MemberSummary) else member


def _primary_metric(recipe: dict[str, Any], records: list[MemberRecord]) -> tuple[str, str] | None:
    measured = [metrics for record in records for metrics in (record.metrics_after, record.metrics_before)]
    for name in find_paradigm(recipe.get("task", "contrastive")).primary_metrics:
        for splits in measured:
            for split, values in splits.items():
                if name in values:
                    return split, name
    return None


def _towers(recipe: dict[str, Any], member: str) -> dict[str, str]:
    """What the plan says of towers, where it is older than that: from the recipe of a CLIP."""
    settings: dict[str, Any] = next((item for item in recipe.get("members", []) if item["name"] == member), {})
    towers = {"image tower": settings.get("vision"), "text tower": settings.get("text")}
    return {name: f"{tower['hidden_size']} × {tower['num_hidden_layers']}" for name, tower in towers.items() if tower}
