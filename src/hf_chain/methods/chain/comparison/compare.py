"""Runs of chains and of twins set against each other."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_chain.errors import HfChainError
from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.comparison.family import FamilyVerdict, judge_family, last_of_each_size
from hf_chain.methods.chain.comparison.member import MemberVerdict, judge_member
from hf_chain.methods.chain.comparison.runs import check_comparable, choose_metric, read_runs
from hf_chain.methods.chain.comparison.tree import Delivery, Size, grow_tree, name_of, seed_of
from hf_chain.methods.chain.comparison.twins import Gap, Twins
from hf_chain.runs.ledger import FamilyRecord

OF_ONE_RUN = ("name", "seed", "output_dir", "hub", "evaluation", "tokenizer")
"""Of a recipe: what runs of one chain with several seeds need not have in common."""


@dataclass(frozen=True)
class ChainVerdict:
    """A chain over its seeds.

    Args:
        name (`str`): What the names of its runs have in common.
        runs (`dict[int, str]`): Seed to the name of its run.
        members (`list[MemberVerdict]`): By size, controls included.
        family (`FamilyVerdict`, *optional*): All together.
    """

    name: str
    runs: dict[int, str]
    members: list[MemberVerdict]
    family: FamilyVerdict | None

    def to_json(self) -> dict[str, Any]:
        """Everything, under names that stay."""
        return {
            "name": self.name,
            "runs": {str(seed): run for seed, run in self.runs.items()},
            "members": [member.to_json() for member in self.members],
            "family": self.family.to_json() if self.family else None,
        }


@dataclass(frozen=True)
class Comparison:
    """What chains cost against twins at equal quality.

    Args:
        split (`str`): Split that is compared on.
        metric (`str`): Metric that is compared by.
        twins (`list[Twins]`): Sizes that were trained alone, by parameters.
        gaps (`list[Gap]`): Between each of them and the next.
        chains (`list[ChainVerdict]`): The chains.
        grown (`list[Delivery]`): All members that have something of another shape in them.
        notes (`list[str]`): What is in no figure, and why.
    """

    split: str
    metric: str
    twins: list[Twins]
    gaps: list[Gap]
    chains: list[ChainVerdict]
    grown: list[Delivery]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Everything, under names that stay."""
        return {
            "split": self.split,
            "metric": self.metric,
            "lower_is_better": metric_of(self.metric).lower_is_better,
            "sizes": [
                {"size": twins.size.label, "parameters": twins.size.parameters}
                | {"macs_per_sample": twins.size.macs_per_sample, "twins": twins.to_json()}
                for twins in self.twins
            ],
            "gaps": [gap.to_json() for gap in self.gaps],
            "chains": [chain.to_json() for chain in self.chains],
            "notes": self.notes,
        }


def compare(folders: Sequence[str | Path], metric: str | None = None, split: str = "validation") -> Comparison:
    """Says what the chains among runs cost against twins of the same sizes at equal quality.

    Ledgers alone are read; runs may be unfinished.

    Args:
        folders (`Sequence[str | Path]`): Folders of runs: chains, twins and continued predecessors, in any order.
        metric (`str`, *optional*): Name of the metric; `None` takes the main one of the task.
        split (`str`): Split that it was measured on.

    Raises:
        HfChainError: when a folder has no ledger, runs do not compare, nothing was measured, or a member has grown
            from one of a run that is not among them.
    """
    runs = read_runs(folders)
    check_comparable(runs, split)
    metric = choose_metric(runs, split, metric)
    lower_is_better = metric_of(metric).lower_is_better
    families = grow_tree(runs, split, metric)
    everyone = list(dict.fromkeys(one for family in families for one in family))
    twins: dict[Size, Twins] = {}
    for one in sorted(everyone, key=lambda one: one.size.number):
        if one.kind == "alone" and one.quality is not None and one.lineage("macs"):
            twins.setdefault(one.size, Twins(one.size, lower_is_better)).deliveries.append(one)
    ordered = list(twins.values())
    return Comparison(
        split,
        metric,
        ordered,
        [Gap.between(small, large) for small, large in zip(ordered, ordered[1:], strict=False)],
        [_judge(group, twins, lower_is_better) for group in _chains(runs, families)],
        [one for one in everyone if one.kind != "alone" and one.quality is not None and one.lineage("macs")],
        list(_notes(runs, everyone, split, metric)),
    )


Group = dict[int, tuple[FamilyRecord, list[Delivery]]]
"""Runs of one chain by seed, with their members."""


def _chains(runs: Sequence[FamilyRecord], families: Sequence[list[Delivery]]) -> list[Group]:
    """Runs in which something has grown, those of one recipe together; without runs that others have all of."""
    groups: dict[str, Group] = {}
    whole = [{one for one in family if not one.is_control} for family in families]
    for place, (run, family) in enumerate(zip(runs, families, strict=True)):
        contained = any(
            whole[place] < other or (whole[place] == other and number < place)
            for number, other in enumerate(whole)
            if number != place
        )
        if contained or not any(one.kind == "grown" for one in family):
            continue
        group, seed = groups.setdefault(_recipe(run), {}), seed_of(run)
        other, _ = group.setdefault(seed, (run, family))
        if other is not run:
            raise HfChainError(
                f"{other.run_dir} and {run.run_dir} are the same chain with the same seed, {seed}: leave one out"
            )
    return list(groups.values())


def _recipe(run: FamilyRecord) -> str:
    """What runs of one chain have in common; where a member of another run goes on, that of the same seed does."""
    recipe = {name: value for name, value in run.recipe.items() if name not in OF_ONE_RUN}
    before = re.sub(rf"(?<!\d){seed_of(run)}(?!\d)", "SEED", str(recipe.get("predecessor")))
    return json.dumps(recipe | {"predecessor": before}, sort_keys=True)


def _judge(group: Group, twins: dict[Size, Twins], lower_is_better: bool) -> ChainVerdict:
    families = {seed: family for seed, (_, family) in sorted(group.items())}
    last = {one for family in families.values() for one in last_of_each_size(family)}
    shown = [
        one for family in families.values() for one in family if one in last or one.kind != "alone" or one.is_control
    ]
    shown.sort(key=lambda one: (one.size.number, one.lineage("macs") or 0))
    members = []
    for name in dict.fromkeys(one.name for one in shown):
        seeds = {seed: one for seed, family in families.items() for one in family if one.name == name}
        members.append(judge_member(seeds, twins, lower_is_better, any(one in last for one in seeds.values())))
    runs = {seed: name_of(run) for seed, (run, _) in sorted(group.items())}
    return ChainVerdict(
        _common_name(list(runs.values())),
        runs,
        [member for member in members if member is not None],
        judge_family(families, twins),
    )


def _common_name(names: list[str]) -> str:
    """`books` for `books-0` and `books-1`; all names where they begin with nothing in common."""
    common = os.path.commonprefix(names)
    return (common if len(set(names)) == 1 else common.rstrip("-_. 0123456789")) or ", ".join(names)


def _notes(runs: Sequence[FamilyRecord], everyone: Sequence[Delivery], split: str, metric: str) -> Iterator[str]:
    for run in runs:
        if waiting := [record.name for record in run.members if not record.counted]:
            yield f"{name_of(run)}: {', '.join(waiting)} not trained yet."
    for one in everyone:
        where = f"{one.name} of {name_of(one.run)}"
        if one.quality is None:
            yield f"{where} has no {metric} on {split}: it counts as an ancestor alone."
        if not one.lineage("macs"):
            yield f"{where} says of itself or of an ancestor no cost: it is left out."
        if one.published is not None:
            yield f"{where} has grown from the published {one.published}, whose cost is in no figure."
