"""Trained members of all runs as one tree: what each has grown from, and what it took to have it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hf_chain.errors import HfChainError
from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.comparison.sizes import Size, sizes_of
from hf_chain.runs.ledger import LEDGER_NAME, TRUNKS_FOLDER, FamilyRecord, MemberRecord

Unit = Literal["macs", "seconds"]
"""What costs are counted in: multiply-accumulate operations, or wall-clock seconds, of training."""
UNITS: tuple[Unit, ...] = ("macs", "seconds")
Kind = Literal["alone", "grown", "trained on"]


@dataclass(eq=False)
class Delivery:
    """A trained member.

    Args:
        run (`FamilyRecord`): The run that has it.
        record (`MemberRecord`): What the ledger knows of it.
        size (`Size`): Its shape.
        quality (`float`, *optional*): Its metric; `None` where it was not measured.
        trials (`int`, *optional*): What that is a mean over.
        parent (`Delivery`, *optional*): What it has grown from.
        published (`str`, *optional*): The published model that it has grown from instead.
        from_delivered (`bool`): Whether it needed what its parent delivered, and not the trunk alone: it was taught by
            it, or has grown from its folder.
    """

    run: FamilyRecord
    record: MemberRecord
    size: Size
    quality: float | None
    trials: int | None
    parent: Delivery | None = None
    published: str | None = None
    from_delivered: bool = False
    children: list[Delivery] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the member."""
        return self.record.name

    @property
    def seed(self) -> int:
        """Of the recipe."""
        return seed_of(self.run)

    @property
    def ancestors(self) -> Iterator[Delivery]:
        """Nearest first."""
        before = self.parent
        while before is not None:
            yield before
            before = before.parent

    @property
    def kind(self) -> Kind:
        """`alone` where nothing of another shape is in it, `trained on` where that was so in its parent already."""
        line = [self, *self.ancestors]
        if line[-1].published is None and all(one.size == self.size for one in line):
            return "alone"
        return "trained on" if self.parent is not None and self.parent.size == self.size else "grown"

    @property
    def predecessor(self) -> Delivery | None:
        """The nearest ancestor of another shape."""
        return next((one for one in self.ancestors if one.size != self.size), None)

    @property
    def is_control(self) -> bool:
        """Whether it only says what a member, from which others grow, would have become by training on."""
        line = [self]
        for one in self.ancestors:
            if one.size != self.size:
                break
            line.append(one)
        return not self._is_outgrown and any(one.has_grown_children for one in line[1:])

    @property
    def has_grown_children(self) -> bool:
        """Whether a member of another shape has grown from it."""
        return any(child.size != self.size for child in self.children)

    @property
    def _is_outgrown(self) -> bool:
        return self.has_grown_children or any(child._is_outgrown for child in self.children)

    def own(self, unit: Unit) -> float:
        """What its own training cost, its decay branch included; 0 where that is not known."""
        return self.record.training_macs.get("total", 0) if unit == "macs" else self.record.seconds

    def stem(self, unit: Unit) -> float:
        """What its own training cost up to the state that others grow from."""
        macs, trunk = self.own("macs"), self.record.trunk.get("training_macs")
        if trunk is None:
            return self.own(unit)
        # Seconds of the trunk are not measured apart from those of its branch.
        return float(trunk) if unit == "macs" else self.own(unit) * float(trunk) / macs

    def paid(self, unit: Unit) -> dict[Delivery, float]:
        """What has to be paid for it, by itself and by each of its ancestors."""
        costs, child = {self: self.own(unit)}, self
        for one in self.ancestors:
            costs[one] = one.own(unit) if child.from_delivered else one.stem(unit)
            child = one
        return costs

    def lineage(self, unit: Unit) -> float | None:
        """What is needed to have it, from scratch or from a published model; `None` where it is not all known."""
        costs = self.paid(unit).values()
        return sum(costs) if all(costs) else None


def seed_of(run: FamilyRecord) -> int:
    """The seed of a run's recipe."""
    return int(run.recipe.get("seed", 0))


def name_of(run: FamilyRecord) -> str:
    """The name of a run."""
    return str(run.recipe.get("name") or run.run_dir.resolve().name)


def grow_tree(runs: Sequence[FamilyRecord], split: str, metric: str) -> list[list[Delivery]]:
    """The trained members of each run, linked to what they have grown from.

    A member that several runs have with the same weights, as runs that begin with another one's members do, is one.

    Args:
        runs (`Sequence[FamilyRecord]`): Finished or not.
        split (`str`): Split that `metric` was measured on.
        metric (`str`): Name of the metric.

    Raises:
        HfChainError: when a member has grown from one of a run that is not among them.
    """
    sizes = sizes_of(runs)
    unique: dict[Any, Delivery] = {}
    found: list[list[Delivery]] = []
    for place, run in enumerate(runs):
        found.append([])
        for record in run.members:
            if not record.counted:
                continue
            quality = record.metrics_after.get(split, {}).get(metric)
            if quality is not None and not math.isfinite(quality):
                quality = None
            trials = record.metrics_trials.get(split, {}).get(metric)
            key = (record.weights_sha256, record.parameters, record.training_macs.get("total"))
            size = sizes[place, record.name]
            new = Delivery(run, record, size, quality, trials if metric_of(metric).is_share else None)
            new.from_delivered = record.training_macs.get("teacher", 0) > 0
            found[-1].append(unique.setdefault(key if record.weights_sha256 else (place, record.name), new))
    folders = {
        delivery.run.run_dir.resolve() / delivery.record.folder: delivery
        for deliveries in found
        for delivery in deliveries
        if delivery.record.folder
    }
    for run, deliveries in zip(runs, found, strict=True):
        inside = {delivery.name: delivery for delivery in deliveries}
        for delivery in deliveries:
            if delivery.run is run and delivery.record.parent is not None:
                _link(delivery, inside, folders)
    return found


def _link(delivery: Delivery, inside: dict[str, Delivery], folders: dict[Path, Delivery]) -> None:
    name, run = delivery.record.parent or "", delivery.run
    if name in inside:
        delivery.parent = inside[name]
    elif any(member.get("name") == name for member in run.recipe.get("members", [])):
        raise HfChainError(f"{run.run_dir} does not say what {name} cost, before {delivery.name}: restore its ledger")
    else:
        path = Path(name).resolve()
        of_trunk = path.parent.name == TRUNKS_FOLDER
        delivery.parent = _in(folders, path.parent.parent / path.name if of_trunk else path)
        delivery.from_delivered |= not of_trunk
        if delivery.parent is None:
            for folder in (path.parent, path.parent.parent):
                if (folder / LEDGER_NAME).exists():
                    raise HfChainError(
                        f"{delivery.name} of {run.run_dir} has grown from {name}, and what that cost is in another "
                        f"ledger: compare {folder} with them"
                    )
            delivery.published = name
            return
    delivery.parent.children.append(delivery)


def _in(folders: dict[Path, Delivery], path: Path) -> Delivery | None:
    """The member in a folder; of runs that were moved since, by the names of run and member alone."""
    same = [delivery for folder, delivery in folders.items() if folder.parts[-2:] == path.parts[-2:]]
    return folders.get(path) or (same[0] if len(same) == 1 else None)
