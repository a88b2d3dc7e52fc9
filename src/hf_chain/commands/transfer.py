"""What `hf-chain eval --suite` does: measures a model, or the members of a run, on the data sets of a suite file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_chain.commands.methods import CHAIN, method_of
from hf_chain.commands.report import write_report
from hf_chain.errors import HfChainError
from hf_chain.hub import HubSettings
from hf_chain.hub.catch_up import mend_card, refresh_card
from hf_chain.runs.environment import check_launch
from hf_chain.runs.ledger import LEDGER_NAME, Ledger, MemberRecord, read_family
from hf_chain.runs.lock import only_run
from hf_chain.runs.saved import check_saved
from hf_chain.transfer.settings import Suite, load_suite

SOME_SKIPPED = 3
"""Exit status where a data set was skipped and others were measured."""


def evaluate_suite(name: str, path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Measures a model, or every saved member of a chain's run, on the data sets of a suite.

    Results of a run go into its ledger as they come, so that the same call goes on where a kill ended it, and from
    there into its report and its cards.

    Args:
        name (`str`): Folder or Hub name of a model, or the folder of a run.
        path (`str` or `Path`): The suite file.
        overrides (`Sequence[str]`): Values of it to replace.

    Returns:
        `dict`: `results` and `skipped` by data set, as of `SuiteResults`; of a run by member, in `members`.

    Raises:
        HfChainError: when the suite, the model or the run does not fit, or nothing could be measured.
    """
    from hf_chain.transfer.suite import SuiteResults, load_sets, run_suite

    check_launch()
    suite = load_suite(path, overrides)
    is_run = (Path(name) / LEDGER_NAME).is_file()
    if is_run:
        saved = _saved_members(Path(name))
    else:
        from hf_chain.transfer.model import check_vision_model

        check_vision_model(name)
    sets, skipped = load_sets(suite)
    if not sets:
        first = next(iter(skipped))
        raise HfChainError(f"none of the {len(skipped)} data sets of {path} can be loaded; {first}: {skipped[first]}")

    def shown(found: SuiteResults) -> dict[str, Any]:
        if not found.results:
            first = next(iter(found.skipped))
            raise HfChainError(f"nothing of {path} could be measured; {first}: {found.skipped[first]}")
        return {"results": found.results, "skipped": skipped | found.skipped}

    if not is_run:
        return {"model": name, "suite": str(path)} | shown(run_suite(suite, name, sets))
    members = {}
    with only_run(Path(name)):
        for member in saved:
            members[member.name] = shown(_measure(suite, Path(name), member, sets))
        _write_cards(Path(name))
    write_report(name)
    return {"run": name, "suite": str(path), "members": members}


def is_partial(values: dict[str, Any]) -> bool:
    """Whether something was skipped in what `evaluate_suite` gives."""
    return any(part["skipped"] for part in values.get("members", {"": values}).values())


def _saved_members(run_dir: Path) -> list[MemberRecord]:
    family = read_family(run_dir)
    if method_of(family.recipe) is not CHAIN:
        raise HfChainError(f"{run_dir} is a graft, whose models have no vision tower of their own: give a chain's run")
    saved = [record for record in family.members if record.saved]
    if not saved:
        raise HfChainError(f"{run_dir} has no saved member yet: run its recipe first")
    for record in saved:
        check_saved(record, run_dir / record.folder)
    from hf_chain.transfer.model import check_vision_model

    check_vision_model(run_dir / saved[0].folder)
    return saved


def _measure(suite: Suite, run_dir: Path, member: MemberRecord, sets: Any) -> Any:
    from hf_chain.transfer.suite import run_suite

    results = dict(member.transfer)

    def note(name: str, result: dict[str, Any]) -> None:
        results[name] = result
        Ledger(run_dir).append("transferred", member.name, transfer=results)

    return run_suite(suite, run_dir / member.folder, sets, member.transfer, note)


def _write_cards(run_dir: Path) -> None:
    """Writes the cards of all members anew, but for those that people have edited."""
    family = read_family(run_dir)
    hub = HubSettings(**(family.recipe.get("hub") or {}))
    write_card = method_of(family.recipe).write_card
    for record in family.members:
        if record.saved and record.transfer and mend_card(family, record, hub, write_card):
            refresh_card(family, record, hub, write_card, always=True)
