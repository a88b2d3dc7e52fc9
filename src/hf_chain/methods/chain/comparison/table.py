"""A comparison as people read it: tables of Markdown, and sentences."""

from __future__ import annotations

from collections.abc import Iterator

from hf_chain.cost import human
from hf_chain.cost.table import escaped, markdown_table
from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.comparison.compare import ChainVerdict, Comparison
from hf_chain.methods.chain.comparison.curves import AT_LEAST, AT_MOST, Spread
from hf_chain.methods.chain.comparison.family import FamilyVerdict
from hf_chain.methods.chain.comparison.lead import ENDED, ONE_SEED, Lead
from hf_chain.methods.chain.comparison.member import AHEAD, MemberVerdict
from hf_chain.methods.chain.comparison.tree import Unit
from hf_chain.methods.chain.comparison.twins import APART, Twins
from hf_chain.report import words

NO_TWIN = "no twin"
BOUNDS = {
    AT_LEAST: "the twin was not trained far enough",
    AT_MOST: "the twin's first point is better already",
}
UNKNOWN_USE = {
    ENDED: "its predecessor was not trained on for so many MACs",
    ONE_SEED: "with one seed no error is known",
}


def to_markdown(comparison: Comparison) -> str:
    """The comparison as Markdown, with a trailing newline.

    Args:
        comparison (`Comparison`): What is said.
    """
    metric = metric_of(comparison.metric)
    direction = "lower" if metric.lower_is_better else "higher"
    parts = [
        f"Quality is {metric.title} on {escaped(comparison.split)}, {direction} is better. Costs are of training, "
        "with all that a member has grown from; ± is the standard error over seeds."
    ]
    if comparison.twins:
        parts += ["## Sizes alone", _twins_table(comparison), _gap_table(comparison)]
        parts.append("\n".join(_gap_sentences(comparison)))
    for chain in comparison.chains:
        parts += [f"## {escaped(chain.name)}", _chain_table(chain, comparison.metric)]
        parts.append(_use_table(chain, comparison.metric))
        parts.append("\n".join(_chain_sentences(chain, comparison.metric)))
    if not comparison.chains:
        parts.append("In none of these runs has anything grown: there is no chain to compare.")
    if comparison.notes:
        parts.append("\n".join(f"- {escaped(note)}" for note in comparison.notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def quality(metric: str, spread: Spread | None) -> str:
    """A quality with its standard error: `3.214 ± 0.005`, or `31.2 ± 0.4` of a share."""
    if spread is None:
        return words.UNKNOWN
    # Of a curve that ends too early: it would have become at least so good.
    lower = metric_of(metric).lower_is_better
    bound = {AT_LEAST: AT_MOST if lower else AT_LEAST}.get(spread.bound, spread.bound)
    return _plus_minus(words.cell(metric, spread.mean), words.cell(metric, spread.standard_error), bound)


def times(spread: Spread | None, unknown: str = NO_TWIN) -> str:
    """A ratio with its standard error and bound: `4.03 ± 0.12 ×`, `≥ 4.03 ×`."""
    if spread is None:
        return unknown
    error = words.UNKNOWN if spread.standard_error is None else f"{spread.standard_error:.2f}"
    return f"{_plus_minus(f'{spread.mean:.2f}', error, spread.bound)} ×"


def cost(spread: Spread | None, unit: Unit = "macs", unknown: str = words.UNKNOWN) -> str:
    """A cost with its bound: `4.73T` of MACs, `1 h 23 min` of seconds."""
    if spread is None:
        return unknown
    return _plus_minus(human(spread.mean) if unit == "macs" else words.duration(spread.mean), "", spread.bound)


def _plus_minus(value: str, error: str, bound: str) -> str:
    error = "" if error in ("", words.UNKNOWN) else f" ± {error}"
    return f"{bound} {value}{error}" if bound else f"{value}{error}"


def _ahead(metric: str, lead: Lead | None) -> str:
    """A lead with its error: `+0.034 ± 0.005` where it is the better one."""
    if lead is None:
        return words.UNKNOWN
    error = words.UNKNOWN if lead.error is None else words.cell(metric, lead.error)
    return _plus_minus(words.change(metric, lead.difference.mean), error, lead.difference.bound)


def _verdict(lead: Lead | None) -> str:
    if lead is None:
        return words.UNKNOWN
    return {True: "yes", False: "no", None: "unknown"}[lead.holds]


# Sizes


def _twins_table(comparison: Comparison) -> str:
    header = ["size", "parameters", "seeds", "points", "MACs from – to", "best", "last doubling"]
    return markdown_table(header, [_twins_cells(twins, comparison.metric) for twins in comparison.twins])


def _twins_cells(twins: Twins, metric: str) -> list[str]:
    curves = twins.curves()
    macs = [end for curve in curves.values() for end in (curve.first_cost, curve.last_cost)]
    gains = twins.last_doubling
    return [
        escaped(twins.size.label),
        human(twins.size.parameters),
        str(len(twins.seeds)),
        str(len(twins.deliveries)),
        f"{human(min(macs))} – {human(max(macs))}" if min(macs) < max(macs) else human(macs[0]),
        quality(metric, twins.best),
        words.UNKNOWN if gains is None else words.change(metric, gains.mean),
    ]


def _gap_table(comparison: Comparison) -> str:
    metric = comparison.metric
    header = ["larger size", "smaller", "MACs of both", "ahead by", f"by {APART} errors", "ahead at the ends"]
    rows = [
        [escaped(gap.larger.label), escaped(gap.smaller.label), cost(gap.macs)]
        + [_ahead(metric, gap.equal), _verdict(gap.equal), _ahead(metric, gap.ends)]
        for gap in comparison.gaps
    ]
    return markdown_table(header, rows) if rows else ""


def _gap_sentences(comparison: Comparison) -> Iterator[str]:
    for gap in comparison.gaps:
        if gap.equal is not None and gap.equal.holds is False:
            yield (
                f"At equal MACs {escaped(gap.larger.label)} does not stand clear of {escaped(gap.smaller.label)}: "
                "there a chain of the two can show nothing."
            )


# Chains


def _chain_table(chain: ChainVerdict, metric: str) -> str:
    header = ["member", "size", "kind", "quality", "MACs", "twin's MACs", "speed-up", "in time"]
    return markdown_table(header, [_member_cells(member, metric) for member in chain.members])


def _member_cells(member: MemberVerdict, metric: str) -> list[str]:
    alone = member.kind == "alone"
    return [
        escaped(member.name),
        escaped(member.size.label),
        member.kind if member.delivered else f"{member.kind} (not counted)",
        quality(metric, member.quality),
        cost(member.cost["macs"]),
        "itself" if alone else cost(member.twin["macs"], unknown=NO_TWIN),
        words.UNKNOWN if alone else times(member.speed_up["macs"]),
        words.UNKNOWN if alone else times(member.speed_up["seconds"], words.UNKNOWN),
    ]


def _use_table(chain: ChainVerdict, metric: str) -> str:
    header = ["member", "quality", "its predecessor trained on", "ahead by", "uses its size"]
    rows = [
        [escaped(member.name), quality(metric, member.quality), quality(metric, member.continued)]
        + [_ahead(metric, member.use), _verdict(member.use)]
        for member in chain.members
        if member.predecessor is not None
    ]
    return markdown_table(header, rows) if rows else ""


def _chain_sentences(chain: ChainVerdict, metric: str) -> Iterator[str]:
    if chain.family is not None:
        yield from _family_sentences(chain.family)
    for member in chain.members:
        if not member.delivered:
            continue
        name = escaped(member.name)
        speed_up = member.speed_up["macs"]
        if member.kind != "alone" and speed_up is None:
            yield f"There is no twin of {name} ({escaped(member.size.label)}) with a seed of the chain."
        elif speed_up is not None and speed_up.bound in BOUNDS:
            yield f"{name}: {times(speed_up)}, as {BOUNDS[speed_up.bound]}."
        if member.use is not None and member.use.unknown:
            yield f"Whether {name} uses its size is unknown: {UNKNOWN_USE[member.use.unknown]}."
        if member.use is not None and member.use.holds is False:
            ahead = f"is not ahead by {AHEAD} standard errors" if member.use.difference.mean > 0 else "is not ahead"
            yield f"{name} does not use its size: it {ahead} of its predecessor, trained on for the same MACs."
    yield "Times are wall-clock seconds of whatever machine a run was on; MACs compare."


def _family_sentences(family: FamilyVerdict) -> Iterator[str]:
    names, largest = " → ".join(map(escaped, family.members)), escaped(family.largest)
    ratio, share, seconds = (family.ratio["macs"], family.largest_share["macs"], family.ratio["seconds"])
    if ratio is None or family.twins["macs"] is None:
        missing = ", ".join(map(escaped, family.without_twin))
        yield (
            f"The family {names} costs {cost(family.cost['macs'])} MACs; no twin says what {missing} would cost alone."
        )
        return
    yield (
        f"The family {names} costs {cost(family.cost['macs'])} MACs, its twins at equal quality "
        f"{cost(family.twins['macs'])}: {times(ratio)} as much."
    )
    each = ", ".join(f"{times(Spread({seed: one}))} with seed {seed}" for seed, one in ratio.seeds.items())
    yield f"That is {each}{f'; in time {times(seconds)}' if seconds else ''}."
    if share is not None:
        bound = f"{share.bound} " if share.bound else ""
        yield f"The whole family costs {bound}{words.percent(share.mean)} of {largest} alone at equal quality."
        if not (bound or ratio.bound):
            # Twins of all over the largest's: what a family is worth that costs no more than its last member alone.
            yield (
                f"If it cost 100 %, twins would cost {ratio.mean * share.mean:.2f} times as much: what is above that "
                "takes growth to learn faster than the largest size does from scratch."
            )
