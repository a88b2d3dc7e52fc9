"""Chains against twins at equal quality: figures of ledgers whose answers are computed here by hand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.comparison.compare import Comparison, compare
from hf_chain.methods.chain.comparison.curves import Reading
from hf_chain.methods.chain.comparison.member import MemberVerdict
from hf_chain.runs.ledger import Ledger
from support.ledgers import Trained, write_ledger

CHAIN = (
    Trained("xs", 220, 3.5, trunk=200),
    Trained("s", 330, 3.3, "xs", trunk=300),
    Trained("m", 500, 2.7, "s"),
)
"""Lineages of 220, 200 + 330 and 200 + 300 + 500; all together 220 + 330 + 500."""
TWINS = {
    "xs": (
        Trained("xs-1", 110, 4.0, trunk=100),
        Trained("xs-2", 120, 3.5, "xs-1", trunk=100),
        Trained("xs-3", 240, 3.4, "xs-2", trunk=200),
        Trained("xs-4", 480, 3.35, "xs-3"),
    ),
    "s": (Trained("s-1", 400, 3.6), Trained("s-2", 1200, 3.0, "s-1")),
    "m": (Trained("m-1", 2000, 2.9), Trained("m-2", 6000, 2.5, "m-1")),
}
"""(110, 4.0), (220, 3.5), (440, 3.4), (880, 3.35); (400, 3.6), (1600, 3.0); (2000, 2.9), (8000, 2.5)."""


def write_twins(folder: Path, seed: int = 0) -> list[Path]:
    return [write_ledger(folder / f"twin-{size}-{seed}", *members, seed=seed) for size, members in TWINS.items()]


def member(comparison: Comparison, name: str, chain: int = 0) -> MemberVerdict:
    return next(found for found in comparison.chains[chain].members if found.name == name)


def readings(spread: Any) -> dict[int, Reading]:
    return {seed: Reading(pytest.approx(one.value), one.bound) for seed, one in spread.seeds.items()}


def test_every_member_is_set_against_its_twin_at_equal_quality(tmp_path: Path) -> None:
    found = compare([write_ledger(tmp_path / "chain", *CHAIN), *write_twins(tmp_path)])
    (chain,) = found.chains
    assert (chain.name, [one.name for one in chain.members]) == ("chain", ["xs", "s", "m"])
    assert [one.kind for one in chain.members] == ["alone", "grown", "grown"]
    assert [one.cost["macs"].mean for one in chain.members] == [220, 530, 1000]
    # 3.3 is half way from 3.6 to 3.0, and 800 from 400 to 1600; 2.7 half way from 2.9 to 2.5.
    assert [one.twin["macs"].mean for one in chain.members] == pytest.approx([220, 800, 4000])
    assert [one.speed_up["macs"].mean for one in chain.members] == pytest.approx([1, 800 / 530, 4])
    # Seconds are a tenth of the MACs, so their ratios are the same.
    assert member(found, "s").cost["seconds"].mean == pytest.approx(53)
    assert member(found, "m").speed_up["seconds"].mean == pytest.approx(4)
    family = chain.family
    assert (family.members, family.largest, family.without_twin) == (["xs", "s", "m"], "m", [])
    assert family.cost["macs"].mean == 1050 and family.twins["macs"].mean == pytest.approx(220 + 800 + 4000)
    assert family.ratio["macs"].mean == pytest.approx(5020 / 1050)
    assert family.largest_share["macs"].mean == pytest.approx(1050 / 4000)
    assert family.ratio["seconds"].mean == pytest.approx(5020 / 1050)


def test_without_trunks_whole_trainings_are_paid(tmp_path: Path) -> None:
    members = [Trained(one.name, one.macs, one.quality, one.parent) for one in CHAIN]
    found = compare([write_ledger(tmp_path / "chain", *members), *write_twins(tmp_path)])
    assert [one.cost["macs"].mean for one in found.chains[0].members] == [220, 550, 1050]
    assert found.chains[0].family.cost["macs"].mean == 1050


def test_who_is_taught_pays_for_what_was_delivered(tmp_path: Path) -> None:
    """A teacher is its predecessor as it was delivered, decay branch and all."""
    members = [CHAIN[0], Trained("s", 330, 3.3, "xs", trunk=300, teacher=30), CHAIN[2]]
    found = compare([write_ledger(tmp_path / "chain", *members), *write_twins(tmp_path)])
    assert [one.cost["macs"].mean for one in found.chains[0].members] == [220, 220 + 330, 220 + 300 + 500]
    assert found.chains[0].family.cost["macs"].mean == 1050


def test_a_star_pays_for_its_trunk_once(tmp_path: Path) -> None:
    star = [CHAIN[0], CHAIN[1], Trained("m", 500, 2.7, "xs")]
    found = compare([write_ledger(tmp_path / "star", *star), *write_twins(tmp_path)])
    assert [one.cost["macs"].mean for one in found.chains[0].members] == [220, 530, 700]
    assert found.chains[0].family.cost["macs"].mean == 1050
    assert member(found, "m").predecessor.parameters == 100


def test_beyond_the_ends_of_a_twin_there_are_bounds(tmp_path: Path) -> None:
    better = [*CHAIN[:1], Trained("s", 330, 3.7, "xs", trunk=300), Trained("m", 500, 2.4, "s")]
    found = compare([write_ledger(tmp_path / "chain", *better), *write_twins(tmp_path)])
    assert readings(member(found, "s").speed_up["macs"]) == {0: Reading(400 / 530, "≤")}
    assert readings(member(found, "m").speed_up["macs"]) == {0: Reading(8, "≥")}
    family = found.chains[0].family
    assert family.ratio["macs"].bound == "?"
    assert readings(family.largest_share["macs"]) == {0: Reading(1050 / 8000, "≤")}


def test_a_size_without_a_twin_is_said(tmp_path: Path) -> None:
    found = compare([write_ledger(tmp_path / "chain", *CHAIN), *write_twins(tmp_path)[:2]])
    assert member(found, "m").speed_up["macs"] is None and member(found, "s").speed_up["macs"] is not None
    family = found.chains[0].family
    assert family.without_twin == ["m"] and family.ratio["macs"] is None and family.largest_share["macs"] is None


def test_members_are_paired_with_twins_of_their_seed(tmp_path: Path) -> None:
    other = [*CHAIN[:2], Trained("m", 500, 2.5, "s")]
    runs = [write_ledger(tmp_path / "books-0", *CHAIN), write_ledger(tmp_path / "books-1", *other, seed=1)]
    found = compare([*runs, *write_twins(tmp_path, 0), *write_twins(tmp_path, 1)])
    (chain,) = found.chains
    assert chain.name == "books" and chain.runs == {0: "books-0", 1: "books-1"}
    speed_up = member(found, "m").speed_up["macs"]
    assert readings(speed_up) == {0: Reading(4), 1: Reading(8)} and speed_up.mean == pytest.approx(6)
    # Deviations of 2 from the mean: a variance of 8, over two seeds.
    assert speed_up.standard_error == pytest.approx(2)
    assert chain.family.ratio["macs"].standard_error == pytest.approx(2000 / 1050)
    alone = compare([*runs, *write_twins(tmp_path, 0)])
    assert readings(member(alone, "m").speed_up["macs"]) == {0: Reading(4)}
    assert alone.chains[0].family.without_twin == ["s", "m"]


def test_a_member_has_to_beat_the_first_one_trained_on(tmp_path: Path) -> None:
    """For 530 the first size is between (440, 3.4) and (880, 3.35), for 1,000 it was not trained far enough."""
    found = compare([write_ledger(tmp_path / "chain", *CHAIN), *write_twins(tmp_path)])
    small = member(found, "s")
    expected = 3.4 - 0.05 * math.log2(530 / 440)
    assert small.continued.mean == pytest.approx(expected)
    assert small.use.difference.mean == pytest.approx(expected - 3.3)
    assert small.use.holds is None and small.use.unknown == "one seed: no error known"
    # The second size alone is at 3.6 - 0.3 · log4(1000 / 400) / ½ for the third's MACs.
    assert member(found, "m").continued.mean == pytest.approx(3.6 - 0.6 * math.log(2.5, 4))
    assert member(found, "xs").use is None


def test_a_continued_predecessor_that_ends_too_early_decides_only_against(tmp_path: Path) -> None:
    short = write_ledger(tmp_path / "twin", *TWINS["xs"][:3])
    ahead = compare([write_ledger(tmp_path / "chain", *CHAIN[:2]), short])
    use = member(ahead, "s").use
    assert readings(use.difference) == {0: Reading(0.1, "≤")}
    assert use.holds is None and use.unknown == "the other was not trained far enough"
    worse = write_ledger(tmp_path / "worse", CHAIN[0], Trained("s", 330, 3.45, "xs"))
    assert member(compare([worse, short]), "s").use.holds is False


@pytest.mark.parametrize(("qualities", "holds"), [((3.30, 3.32, 3.31), True), ((3.3, 3.2, 3.45), False)])
def test_over_seeds_two_standard_errors_decide(tmp_path: Path, qualities: tuple[float, ...], holds: bool) -> None:
    runs = []
    for seed, quality in enumerate(qualities):
        runs.append(write_ledger(tmp_path / f"chain-{seed}", CHAIN[0], Trained("s", 330, quality, "xs"), seed=seed))
        runs.append(write_ledger(tmp_path / f"twin-{seed}", *TWINS["xs"], seed=seed))
    use = member(compare(runs), "s").use
    control = 3.4 - 0.05 * math.log2(530 / 440)
    assert [one.value for one in use.difference.seeds.values()] == pytest.approx([control - q for q in qualities])
    mean = sum(qualities) / 3
    error = math.sqrt(sum((quality - mean) ** 2 for quality in qualities) / 2 / 3)
    assert use.error == pytest.approx(error) and use.errors == pytest.approx((control - mean) / error)
    assert use.holds is holds is (control - mean > 2 * error)


def test_of_one_seed_shares_have_the_error_of_their_samples(tmp_path: Path) -> None:
    chain = [Trained("xs", 100, 0.3, trials=1000), Trained("s", 300, 0.5, "xs", trials=1000)]
    runs = [
        write_ledger(tmp_path / "chain", *chain, metric="top1", task="classification"),
        write_ledger(tmp_path / "twin", Trained("xs", 400, 0.4), metric="top1", task="classification"),
    ]
    use = member(compare(runs), "s").use
    assert use.difference.mean == pytest.approx(0.1)
    assert use.error == pytest.approx(math.sqrt((0.25 + 0.24) / 1000)) and use.holds is True


@pytest.mark.parametrize("place", ["the same run", "another run", "a run that was moved", "a trunk"])
def test_the_continued_predecessor_grows_out_of_the_chain(tmp_path: Path, place: str) -> None:
    """The chain's second member trained on: 600 from its trunk at 200 + 300, so 3.1 for 1,100; 3.2 is near 1,000."""
    parent = {"the same run": "s", "a run that was moved": "elsewhere/chain/02-s"}.get(place)
    parent = parent or str(tmp_path / "chain" / ("trunks/02-s" if place == "a trunk" else "02-s"))
    control = Trained("s-on", 600, 3.1, parent)
    inside = place == "the same run"
    runs = [write_ledger(tmp_path / "chain", *CHAIN, *([control] if inside else [])), *write_twins(tmp_path)]
    found = compare([*runs, *([] if inside else [write_ledger(tmp_path / "control", control)])])
    (chain,) = found.chains
    # From what was delivered all of it is paid, from the trunk what led to it.
    macs = 1100 if place in ("the same run", "a trunk") else 1130
    (grown,) = [one for one in found.grown if one.name == "s-on"]
    assert (grown.kind, grown.lineage("macs"), grown.is_control) == ("trained on", macs, True)
    expected = 3.3 - 0.2 * math.log(1000 / 530) / math.log(macs / 530)
    assert member(found, "m").continued.mean == pytest.approx(expected)
    # A control is in no family's cost, and no member of it.
    assert chain.family.cost["macs"].mean == 1050 and chain.family.members == ["xs", "s", "m"]
    if inside:
        shown = member(found, "s-on")
        assert shown.kind == "trained on" and not shown.delivered and shown.cost["macs"].mean == 1100
        # 3.1 is five sixths of the way from 3.6 to 3.0.
        assert shown.twin["macs"].mean == pytest.approx(400 * 4 ** (5 / 6))


def test_the_very_predecessor_trained_on_counts_before_its_size_alone(tmp_path: Path) -> None:
    """Though the size alone is at 3.203 for 1,000."""
    chain = write_ledger(tmp_path / "chain", *CHAIN, Trained("s-on", 600, 3.28, "s"))
    continued = member(compare([chain, *write_twins(tmp_path)]), "m").continued
    assert continued.mean == pytest.approx(3.3 - 0.02 * math.log(1000 / 530) / math.log(1100 / 530))


def test_what_was_trained_on_last_is_delivered(tmp_path: Path) -> None:
    longer = [*CHAIN[:2], Trained("s-on", 600, 3.0, "s")]
    family = compare([write_ledger(tmp_path / "chain", *longer), *write_twins(tmp_path)]).chains[0].family
    assert family.members == ["xs", "s-on"] and family.cost["macs"].mean == 220 + 330 + 600
    assert family.twins["macs"].mean == pytest.approx(220 + 1600)


def test_sizes_are_compared_where_both_were_trained(tmp_path: Path) -> None:
    found = compare(write_twins(tmp_path))
    assert found.chains == [] and [one.size.label for one in found.twins] == ["100 × 2", "400 × 2", "1600 × 2"]
    gap, far = found.gaps
    # At 880 the second size is at 3.6 - 0.6 · log4(880 / 400).
    assert gap.macs.mean == 880
    assert gap.equal.difference.mean == pytest.approx(3.35 - (3.6 - 0.6 * math.log(2.2, 4)))
    assert gap.ends.difference.mean == pytest.approx(0.35) and gap.ends.unknown == "one seed: no error known"
    assert far.macs is None and far.equal is None and far.ends.difference.mean == pytest.approx(0.5)
    values = found.twins[0].to_json()
    assert values["last_doubling"]["mean"] == pytest.approx(0.05) and values["end"]["mean"] == 3.35
    assert [(point["macs"], point["seconds"]) for point in values["points"]] == [
        (110, 11), (220, pytest.approx(22)), (440, pytest.approx(44)), (880, pytest.approx(88))
    ]  # fmt: skip


def test_curves_that_end_early_are_in_no_mean_of_ends(tmp_path: Path) -> None:
    runs = [
        write_ledger(
            tmp_path / "xs-0", Trained("xs-a", 100, 3.0, trunk=100), Trained("xs-b", 100, 2.5, "xs-a"), seed=0
        ),
        write_ledger(tmp_path / "xs-1", Trained("xs-a", 100, 3.2), seed=1),
        *(write_ledger(tmp_path / f"s-{seed}", Trained("s", 400, 2.3), seed=seed) for seed in (0, 1)),
    ]
    found = compare(runs)
    twins = found.twins[0]
    assert twins.seeds == [0, 1] and readings(twins.best) == {0: Reading(2.5)}
    assert readings(twins.last_doubling) == {0: Reading(0.5)}
    assert readings(found.gaps[0].ends.difference) == {0: Reading(pytest.approx(0.2))}


def test_four_standard_errors_keep_sizes_apart(tmp_path: Path) -> None:
    runs = [
        write_ledger(tmp_path / f"{name}-{seed}", Trained(name, 100, quality), seed=seed)
        for name, qualities in {"xs": (3.0, 3.1), "s": (2.9, 2.95), "m": (2.55, 2.57)}.items()
        for seed, quality in enumerate(qualities)
    ]
    close, apart = compare(runs).gaps
    # Differences of 0.1 and 0.15: a mean of 0.125 and an error of 0.025, of 0.35 and 0.38: 0.365 and 0.015.
    assert close.ends.errors == pytest.approx(5) and close.ends.holds is True
    assert apart.equal.error == pytest.approx(0.015) and apart.equal.holds is True
    runs[2:4] = [write_ledger(tmp_path / f"near-{seed}", Trained("s", 100, 2.9), seed=seed) for seed in (0, 1)]
    close, _ = compare(runs).gaps
    assert close.ends.errors == pytest.approx(3) and close.ends.holds is False


def test_a_run_that_begins_with_members_of_another_adds_none(tmp_path: Path) -> None:
    chain = write_ledger(tmp_path / "chain", *CHAIN)
    shutil.copytree(chain, tmp_path / "copy")
    twins = write_twins(tmp_path)
    once, twice = compare([chain, *twins]), compare([chain, tmp_path / "copy", chain, *twins])
    assert once.to_json() == twice.to_json()


def copied(folder: Path, entries: list[dict[str, Any]]) -> Path:
    """A run of these events, without their times."""
    for entry in entries:
        Ledger(folder).append(**{name: value for name, value in entry.items() if name != "time"})
    return folder


def test_a_control_that_begins_with_copies_of_a_chain_is_no_chain(tmp_path: Path) -> None:
    """As benchmarks take finished members over, with their lines of the ledger."""
    chain = write_ledger(tmp_path / "chain", *CHAIN)
    entries = list(Ledger(write_ledger(tmp_path / "new", *CHAIN[:2], Trained("s-on", 600, 3.1, "s"))).entries())
    for entry in entries:
        if entry["event"] == "saved":
            entry["weights_sha256"] = entry["weights_sha256"].replace("-new-", "-chain-")
    found = compare([copied(tmp_path / "control", entries), chain, *write_twins(tmp_path)])
    assert [one.name for one in found.chains] == ["chain"] and found.chains[0].family.cost["macs"].mean == 1050
    assert member(found, "m").continued.mean == pytest.approx(3.3 - 0.2 * math.log(1000 / 530) / math.log(1100 / 530))


def test_a_seed_that_has_not_come_so_far_is_in_no_mean_of_families(tmp_path: Path) -> None:
    whole = write_ledger(tmp_path / "books-0", *CHAIN)
    entries = [entry for entry in Ledger(whole).entries() if entry.get("member") != "m"]
    for entry in entries:
        if entry["event"] == "run_started":
            entry["recipe"] |= {"seed": 1, "name": "books-1"}
        if entry["event"] == "saved":
            entry["weights_sha256"] += "-1"
    runs = [whole, copied(tmp_path / "books-1", entries)]
    found = compare([*runs, *write_twins(tmp_path, 0), *write_twins(tmp_path, 1)])
    (chain,) = found.chains
    assert set(member(found, "s").speed_up["macs"].seeds) == {0, 1}
    assert set(chain.family.ratio["macs"].seeds) == {0} and chain.family.members == ["xs", "s", "m"]


def test_independent_runs_are_twins(tmp_path: Path) -> None:
    alone = [Trained("xs", 100, 3.9), Trained("s", 700, 3.4), Trained("m", 3000, 2.8)]
    found = compare([write_ledger(tmp_path / "alone", *alone, independent=True)])
    assert found.chains == [] and len(found.twins) == 3


def test_a_published_predecessor_costs_nothing_and_is_said(tmp_path: Path) -> None:
    runs = [write_ledger(tmp_path / "chain", Trained("s", 100, 3.3, "someone/llama")), *write_twins(tmp_path)]
    found = compare(runs)
    assert member(found, "s").kind == "grown" and member(found, "s").speed_up["macs"].mean == pytest.approx(8)
    assert member(found, "s").use is None
    assert found.notes == ["s of chain has grown from the published someone/llama, whose cost is in no figure."]


def test_an_unfinished_run_gives_what_it_has(tmp_path: Path) -> None:
    chain = write_ledger(tmp_path / "chain", CHAIN[0], Trained("s", 330, None, "xs", trunk=300), CHAIN[2])
    (chain / "ledger.jsonl").write_text(
        "".join(
            line + "\n"
            for line in (chain / "ledger.jsonl").read_text().splitlines()
            if not ('"member": "m"' in line and json.loads(line)["event"] != "started")
        )
    )
    found = compare([chain, *write_twins(tmp_path)])
    assert [one.name for one in found.chains[0].members] == ["xs"]
    assert found.notes == [
        "chain: m not trained yet.",
        "s of chain has no nats_per_token on validation: it counts as an ancestor alone.",
    ]


ROWS = {"validation": {"rows": 10}, "train": {"rows": 100}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "classification"}, "task is 'causal_lm' in one and 'classification' in the other"),
        ({"data": ROWS | {"validation": {"rows": 11}}}, "the validation data is {'rows': 10} in one"),
        ({"data": ROWS | {"train": {"rows": 11}}}, "the training data is {'rows': 100} in one"),
        ({"evaluation": {"max_samples": 5, "splits": ["validation"]}}, "evaluation is {} in one"),
        ({"tokenizer": {"name_or_path": None, "vocab_size": 600}}, "tokenizer.vocab_size is 512 in one and 600"),
    ],
)
def test_runs_that_do_not_compare_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"data": ROWS, "tokenizer": {"name_or_path": None, "vocab_size": 512}}
    chain = write_ledger(tmp_path / "chain", *CHAIN, **usual)
    other = write_ledger(tmp_path / "other", *TWINS["s"], **usual | changes)
    with pytest.raises(HfChainError) as error:
        compare([chain, other])
    assert str(error.value).startswith(f"{chain} and {other} do not compare: {message}")


def test_another_seed_may_have_other_training_data(tmp_path: Path) -> None:
    chain = write_ledger(tmp_path / "chain", *CHAIN, data=ROWS, evaluation={"batch_size": 8})
    other = write_ledger(tmp_path / "other", *CHAIN, seed=1, data=ROWS | {"train": {"rows": 9}}, evaluation={})
    assert len(compare([chain, other]).chains) == 1


def test_other_words_do_not_compare(tmp_path: Path) -> None:
    runs = [write_ledger(tmp_path / name, *CHAIN) for name in ("a", "b")]
    for run, words in zip(runs, ("x", "y"), strict=True):
        (run / "processor").mkdir()
        (run / "processor" / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {words: 0}}}))
    with pytest.raises(HfChainError, match="do not compare: the tokenizer is"):
        compare(runs)


def test_what_cannot_be_compared_is_said_in_a_line(tmp_path: Path) -> None:
    chain = write_ledger(tmp_path / "chain", *CHAIN)
    with pytest.raises(HfChainError, match="choose --metric of nats_per_token"):
        compare([chain], metric="top1")
    with pytest.raises(HfChainError, match="no member was measured on test yet: choose --split of validation"):
        compare([chain], split="test")
    with pytest.raises(HfChainError, match="No ledger.jsonl in"):
        compare([tmp_path])
    again = write_ledger(tmp_path / "again", *CHAIN)
    with pytest.raises(HfChainError, match=f"{chain} and {again} are the same chain with the same seed, 0: leave one"):
        compare([chain, again])
    control = write_ledger(tmp_path / "control", Trained("s-on", 600, 3.1, str(chain / "02-s")))
    with pytest.raises(HfChainError, match=f"s-on of {control} has grown from .*: compare {chain} with them"):
        compare([control])
