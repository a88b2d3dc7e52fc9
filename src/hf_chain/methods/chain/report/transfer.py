"""What the members of a chain reached on the data sets of a suite, as report and cards show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_chain.methods.chain.report import noise
from hf_chain.report import words
from hf_chain.report.sheet import Table
from hf_chain.runs.ledger import MemberRecord

TITLE = "Transfer"
NOTE = "on the data sets of a suite, by hf-chain eval --suite; in per cent, with 95 % intervals (Wilson)"


def transfer_table(members: Sequence[MemberRecord]) -> Table:
    """A row a data set, split and metric, a column a member, and what chance reaches.

    Args:
        members (`Sequence[MemberRecord]`): The members that are shown.
    """
    keys = dict.fromkeys(
        (name, result["split"], metric)
        for member in members
        for name, result in member.transfer.items()
        for metric in result["metrics"]
    )
    rows = []
    for name, split, metric in keys:
        results = [result for member in members if (result := member.transfer.get(name)) and result["split"] == split]
        chance = next((result["chance"].get(metric) for result in results if metric in result["chance"]), None)
        cells = [_share(member.transfer.get(name), split, metric) for member in members]
        rows.append([f"{name} ({split})", words.metric_name(metric), *cells, words.cell(metric, chance)])
    return ["data set", "metric", *(member.name for member in members), "chance"], rows


def _share(result: dict[str, Any] | None, split: str, metric: str) -> str:
    if result is None or result["split"] != split or metric not in result["metrics"]:
        return words.UNKNOWN
    share, trials = result["metrics"][metric], result["trials"].get(metric)
    low, high = noise.wilson(share, trials) if trials else (share, share)
    return words.cell(metric, share) + (f" ({100 * low:.1f}–{100 * high:.1f})" if trials else "")
