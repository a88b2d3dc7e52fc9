"""Sizes: the shapes that members of all runs have, whatever they are called."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hf_chain.cost import human
from hf_chain.methods.chain.chain_recipe import MemberSettings
from hf_chain.runs.ledger import FamilyRecord, MemberRecord


@dataclass(frozen=True)
class Size:
    """A shape that members have, in whatever run.

    Args:
        number (`int`): By parameters, from 0.
        label (`str`): Width × layers of each tower where the plan says them, else the parameters.
        parameters (`int`): How many.
        macs_per_sample (`int`): Of a forward.
    """

    number: int
    label: str
    parameters: int
    macs_per_sample: int


def sizes_of(runs: Sequence[FamilyRecord]) -> dict[tuple[int, str], Size]:
    """Sizes of all members: those are one whose configuration, or whose shape in the recipe and parameters, are.

    Args:
        runs (`Sequence[FamilyRecord]`): The runs.

    Returns:
        `dict[tuple[int, str], Size]`: Place of a run, and name of its member, to the size.
    """
    known: dict[Any, int] = {}
    number: dict[tuple[int, str], int] = {}
    for place, run in enumerate(runs):
        for record in run.members:
            keys = [record.config_hash, *_shape(run, record)]
            kind = next((known[key] for key in keys if key and key in known), len(number))
            known |= {key: kind for key in keys if key}
            number[place, record.name] = kind
    first = {kind: where for where, kind in reversed(number.items())}
    records = {kind: runs[place].member(name) for kind, (place, name) in first.items()}
    order = sorted(first, key=lambda kind: (records[kind].parameters, records[kind].macs_per_sample, first[kind]))
    labels = {kind: _label(runs[first[kind][0]], records[kind]) for kind in order}
    sizes = {}
    for place, kind in enumerate(order):
        record, label = records[kind], labels[kind]
        if list(labels.values()).count(label) > 1:
            label = f"{label} ({record.name})"
        sizes[kind] = Size(place, label, record.parameters, record.macs_per_sample)
    return {where: sizes[kind] for where, kind in number.items()}


def _shape(run: FamilyRecord, record: MemberRecord) -> Iterator[str]:
    """The shape as the recipe says it: hashes of configurations differ between versions of transformers."""
    if record.parameters:
        member: dict[str, Any] = next(
            (one for one in run.recipe.get("members", []) if one.get("name") == record.name), {}
        )
        sizes = {field: value for field, value in member.items() if field not in MemberSettings.model_fields}
        model = {
            field: value for field, value in (run.recipe.get("model") or {}).items() if not field.startswith("attn")
        }
        yield json.dumps([record.parameters, record.macs_per_sample, sizes, model], sort_keys=True)


def _label(run: FamilyRecord, record: MemberRecord) -> str:
    plan: dict[str, Any] = next((row for row in run.plan.get("members", []) if row.get("name") == record.name), {})
    return ", ".join((plan.get("shape") or {}).values()) or human(record.parameters)
