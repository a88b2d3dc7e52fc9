"""How trainings ended that were to end when something is reached, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.until import CAP, PATIENCE, REACHED
from hf_chain.report import words
from hf_chain.runs.ledger import MemberRecord


def outcomes(records: Sequence[MemberRecord]) -> Iterator[str]:
    """A sentence for every member that was trained until something: when its training ended, and why."""
    for record in records:
        if not record.stopped or not record.curve:
            continue
        until, stopped, metric = record.until, record.stopped, record.until["metric"]
        values = [point["metrics"][metric] for point in record.curve]
        best = (min if metric_of(metric).lower_is_better else max)(values)
        branch = stopped["steps"] - stopped["step"]
        yield (
            f"{record.name} was trained for {stopped['steps']} of at most {stopped['cap']} steps"
            f"{f', of which {branch} are its branch' * (branch > 0)}: "
            f"{words.metric_name(metric)} on {until['split']} was "
            + {
                REACHED: f"{words.figure(metric, values[-1])} at step {stopped['step']}",
                PATIENCE: f"{words.figure(metric, best)} and had not become better in "
                f"{len(values) - 1 - values.index(best)} evaluations",
                CAP: f"{words.figure(metric, best)} at best",
            }[stopped["why"]]
            + f", and {words.figure(metric, until['target'])}{until.get('words', '')} was asked for."
        )
