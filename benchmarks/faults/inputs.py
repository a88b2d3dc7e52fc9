"""Gives hf-chain wrong and odd recipes, rows, images, tokenizers, templates, models, arguments and Hubs.

    python benchmarks/faults/inputs.py

What is wrong has to be refused in one line that names it, left out with a reason or warned about; what is merely odd
has to be read rightly. The tables are in benchmarks/faults/cases. Goes on where it was stopped; results go to
docs/benchmarks/reliability.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from cases import BASE, Case, all_cases
from cases.base import make_base
from processes import ROOT, Outcome, call, hf_chain, prepare, side_by_side
from results import Results, commit, write_page

PYTHON = ("python",)
"""As the command of a case: what `write` returns is called."""
SECONDS = 150
"""After which a command is said to wait for ever."""


def try_case(case: Case, base: Path, place: Path) -> dict[str, Any]:
    """Meets a case in a folder of its own and says how that ended."""
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=place))
    try:
        (folder / BASE).symlink_to(base)
        with ExitStack() as stack:
            if case.faults is not None:
                stack.enter_context(_hub(case, folder))
            os.chdir(folder)
            outcome = _meet(case, folder)
        verdict, _, detail = judge(case, outcome, folder).partition(": ")
        return {"verdict": verdict, "detail": detail, "status": outcome.status, "said": outcome.last_words}
    finally:
        # What a case has made unreadable, it must not leave.
        shutil.rmtree(folder, ignore_errors=True)


def _meet(case: Case, folder: Path) -> Outcome:
    from hf_chain.cli import exit_cleanly

    options = {"folder": folder, "timeout": SECONDS, "typed": case.typed, "variables": case.variables}
    if case.command == PYTHON and case.write is not None:
        return call(lambda: exit_cleanly(case.write(folder)), **options)
    written = _in_fork(partial(case.write, folder)) if case.write is not None else None
    if written is not None and written.status != 0:
        raise SystemExit(f"{case} cannot be written: {written.err}")
    return hf_chain(*case.command, **options)


def _in_fork(work: Any) -> Outcome:
    """Runs a part of a case apart, so that no case leaves anything in this process."""
    return call(work)


def judge(case: Case, outcome: Outcome, folder: Path) -> str:
    """What was expected of a case, or one of `results.BAD`, after a colon with what was missed."""
    wanted = case.expects.split("/")
    if outcome.ending not in ("accepted", "refused"):
        return outcome.ending
    if case.unless and (found := re.search(case.unless, outcome.out + outcome.err)):
        return f"wrong: {found[0]!r} was said"
    if outcome.ending == "refused":
        if "refused" not in wanted:
            return f"wrong: {case.expects} was expected"
        if not re.search(case.words, outcome.line, re.IGNORECASE):
            return f"unclear: {case.words!r} is not in it"
        made = [path.name for path in folder.glob("runs/*/[0-9][0-9]-*")]
        return f"late: {', '.join(made)} were made before" if made and case.early else "refused"
    reasons = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("runs/*/data/*bad-rows.json*"))
    if "dropped" in wanted and re.search(case.words, reasons + outcome.err, re.IGNORECASE):
        return "dropped"
    if "warned" in wanted and re.search(case.words, outcome.err, re.IGNORECASE):
        return "warned"
    if "right" not in wanted:
        return f"silent: {case.expects} was expected"
    checked = _in_fork(partial(case.check, folder)) if case.check is not None else None
    return (
        "right" if checked is None or checked.status == 0 else f"silent: {checked.err.strip().splitlines()[-1][:300]}"
    )


def _hub(case: Case, folder: Path) -> Any:
    """A Hub of the case's own, which this process and its commands talk to."""
    from huggingface_hub import constants

    from support.hub_server import HubServer

    hub = HubServer()
    for arguments in case.faults or ():
        hub.fail(*arguments)
    os.environ |= hub.environment() | {"HF_HUB_CACHE": str(folder / "cache")}
    constants.ENDPOINT = hub.endpoint
    constants.HUGGINGFACE_CO_URL_TEMPLATE = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    constants.HF_HUB_CACHE = str(folder / "cache")
    return hub


def main() -> None:
    """Tries what is left to try and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "faults", help="where results are kept")
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time")
    parser.add_argument("--only", default="", help="regular expression that the cases have to match")
    parser.add_argument("--again", action="store_true", help="try those again that are known")
    parser.add_argument("--list", action="store_true", help="list the cases and try none")
    arguments = parser.parse_args()
    prepare()
    results, place = Results(arguments.folder / "inputs.jsonl"), (arguments.folder / "inputs").absolute()
    cases = results.left(all_cases(), only=arguments.only, again=arguments.again)
    if arguments.list:
        print(*cases, sep="\n")
        return
    base = place / f"base-{commit()}"
    if not base.exists():
        made = call(partial(make_base, base), timeout=300)
        if made.status != 0:
            raise SystemExit(f"the models of the cases could not be made: {made.err[-2000:]}")
    for case, found in side_by_side(cases, partial(try_case, base=base, place=place), arguments.jobs):
        row = results.add(str(case), group=case.group, **found)
        print(f"{row['verdict']:>8} {case}: {found['detail']} | {found['said'][:160]}", flush=True)
    write_page(arguments.folder)


if __name__ == "__main__":
    from hf_chain.cli import exit_cleanly

    exit_cleanly(main)
