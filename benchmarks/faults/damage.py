"""Damages each file of runs of a chain and of a graft, finished and not, and repeats the command that reads it.

    python benchmarks/faults/damage.py

A bit is flipped, or the file is cut short, zeroed or deleted. Either the result is the same to the bit, or the command
says in one line what is wrong. Goes on where it was stopped; results go to docs/benchmarks/reliability.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from processes import ROOT, Outcome, hf_chain, prepare, side_by_side
from results import Results, write_page
from tiny_runs import RECIPE, stop_after, stop_in_training, write_run

RUN = ("run", RECIPE)
TIMED = ("README.md", "training_log.json", "translator.json", "manifest.json")
"""Files that hold seconds, or hashes of those that do: written anew they are right, though not the same."""
NOTICED = re.compile(r"damage|differ|chang|whole|missing|lacks|again|anew|skipp|hash|sha256|manifest")
"""What a line says that tells of a damaged file, beside its name."""
USED = ("is_local", "local_files_only", "max_length", "pad_to_multiple_of", "pad_token_type_id", "padding_side")
USED += ("stride", "truncation_side", "truncation_strategy")
"""What a tokenizer's file holds more once the tokenizer has been loaded and used; a processor made anew has it."""
IDLE = (".lock",)
"""Files whose content nobody reads."""


@dataclass(frozen=True)
class State:
    """A run at some point, and the command that is repeated on it.

    Args:
        name (`str`): what is shown.
        method (`str`): `chain` or `graft`.
        command (`tuple`): arguments of `hf-chain`.
        files (`tuple[str]`): patterns of the files that are damaged, from the folder of the recipe.
        stop (`Callable`, *optional*): ends the process that makes the run; without one it is finished.
        recipe (`str`): recipe of that process.
        made (`str`): the state whose run this is, where that has another name.
    """

    name: str
    method: str
    command: tuple[str, ...]
    files: tuple[str, ...]
    stop: Callable[[], None] | None = None
    recipe: str = RECIPE
    made: str = ""


MEMBER, STAGE = ("runs/tiny/02-small/*",), ("runs/tiny/05-decoder/**/*",)
COMMON = ("runs/tiny/ledger.jsonl", "runs/tiny/processor/*", "runs/tiny/teacher_features/**/*")
CHAIN = ("runs/tiny/0*/*", "runs/tiny/report/*", *COMMON)
GRAFT = ("runs/tiny/02-surrogate/*", *STAGE, "runs/tiny/examples/**/*", *COMMON)
STATES = [
    State("chain, in training", "chain", RUN, ("runs/tiny/checkpoints/**/*", *COMMON), stop_in_training("small", 5)),
    State("chain, before the second member", "chain", RUN, ("runs/tiny/01*/*", *COMMON), stop_after("saved", "tiny")),
    State("chain, finished", "chain", RUN, CHAIN),
    State("chain, pushed", "chain", ("push", "runs/tiny"), MEMBER, made="chain, finished"),
    State(
        "chain, grown from",
        "chain",
        ("grow", "runs/tiny/02-small", "--vision-width", "64", "grown"),
        MEMBER,
        made="chain, finished",
    ),
    State(
        "graft, in training",
        "graft",
        RUN,
        ("runs/tiny/checkpoints/**/*", "runs/tiny/04-graft/*", *COMMON),
        stop_in_training("decoder", 4),
    ),
    # The card of another run's member is that run's to write.
    State("graft, before it begins", "graft", RUN, ("runs/chain/01-a/[!R]*",), recipe="chain.yaml"),
    State("graft, before the cut", "graft", RUN, ("runs/tiny/01-target/*",), stop_after("saved", "target")),
    State("graft, before it is grafted", "graft", RUN, ("runs/tiny/0[1-3]*/*",), stop_after("saved", "encoder")),
    State("graft, finished", "graft", RUN, GRAFT),
    State("graft, pushed", "graft", ("push", "runs/tiny"), STAGE, made="graft, finished"),
    State("graft, exported", "graft", ("export", "runs/tiny/05-decoder", "llava"), STAGE, made="graft, finished"),
    State(
        "graft, by hand",
        "graft",
        ("graft", "runs/tiny/03-encoder", "runs/tiny/01-target", "grafted"),
        ("runs/tiny/01-target/*", "runs/tiny/03-encoder/*"),
        made="graft, finished",
    ),
]


@dataclass(frozen=True)
class Case:
    """One file of a state, damaged in one way."""

    state: State
    file: str
    damage: str

    def __str__(self) -> str:
        return f"{self.state.name}: {self.file} {self.damage}"


def _flip(content: bytes, place: float) -> bytes:
    middle = int(place * len(content))
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": partial(_flip, place=0.5),
    "flipped near its start": partial(_flip, place=0.02),
    "cut": lambda content: content[: len(content) * 2 // 3],
    "zeroed": lambda content: bytes(len(content)),
    "deleted": lambda content: None,
}
DEEP = (".safetensors", ".jsonl", ".pt", ".pth", ".npy")
"""Files with a header, in which a second bit is flipped."""


def cases_of(state: State, template: Path) -> Iterator[Case]:
    """Every damage of every file that a state names."""
    for pattern in state.files:
        for path in sorted(template.glob(pattern)):
            if path.is_file() and path.stat().st_size:
                for damage in DAMAGES:
                    if damage != "flipped near its start" or path.suffix in DEEP:
                        yield Case(state, str(path.relative_to(template)), damage)


def make_template(state: State, place: Path) -> Path:
    """The folder of a state: recipe and runs, as far as the state has come."""
    folder = place / (state.made or state.name).replace(", ", "-").replace(" ", "-")
    if not folder.exists():
        staging = folder.with_suffix(".new")
        shutil.rmtree(staging, ignore_errors=True)
        write_run(staging, state.method)
        outcome = hf_chain("run", state.recipe, folder=staging, before=state.stop, timeout=300)
        if outcome.status != (9 if state.stop else 0):
            raise SystemExit(f"{state.name} could not be made: {outcome.err[-2000:]}")
        staging.rename(folder)
    return folder


def repeat(state: State, folder: Path) -> Outcome:
    """The command of a state in a copy of its folder; what it pushes goes to repositories named after the copy."""
    prefix = ("--prefix", f"tester/{folder.name}") if state.command[0] == "push" else ()
    return hf_chain(*state.command, *prefix, folder=folder, timeout=180)


def result_of(state: State, folder: Path) -> dict[str, str]:
    """What a command has to leave the same: hashes of the files it made or kept, and what the ledger knows."""
    if state.command[0] == "push":
        return dict(pushed(folder))
    if state.command[0] != "run":
        return _hashes(folder / state.command[-1])
    found: dict[str, str] = {}
    for made in sorted(folder.glob("runs/*/[0-9p]*/")):
        found |= {f"{made.relative_to(folder)}/{name}": digest for name, digest in _hashes(made).items()}
    for ledger in sorted(folder.glob("runs/*/ledger.jsonl")):
        found |= {f"{ledger.relative_to(folder)}, {name}": fact for name, fact in facts(ledger.parent)}
    return found


def facts(run_dir: Path) -> Iterator[tuple[str, str]]:
    """What the ledger knows of each result, but for how fast the machine was and what attempts cost."""
    from hf_chain.runs.ledger import read_family

    told = ("status", "parent", "samples", "parameters", "metrics_before", "metrics_after", "weights_sha256")
    for record in read_family(run_dir).members:
        values = asdict(record)
        yield record.name, json.dumps({name: values[name] for name in told}, sort_keys=True)


def pushed(folder: Path) -> Iterator[tuple[str, str]]:
    """Path and hash of each file that the Hub has of a copy, but for cards."""
    from huggingface_hub import HfApi

    for model in HfApi().list_models(author="tester", search=f"{folder.name}-"):
        for file in HfApi().list_repo_tree(model.id, recursive=True):
            if _is_determined(file.path):
                name = f"{model.id.removeprefix(f'tester/{folder.name}-')}/{file.path}"
                yield name, file.lfs.sha256 if file.lfs else file.blob_id


def pushed_bytes(folder: Path, name: str) -> list[bytes]:
    """Every version of a file that the Hub has of a copy."""
    from huggingface_hub import HfApi

    found = []
    for model in HfApi().list_models(author="tester", search=f"{folder.name}-"):
        if HfApi().file_exists(model.id, name):
            found.append(Path(HfApi().hf_hub_download(model.id, name)).read_bytes())
    return found


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = ((str(path.relative_to(folder)), path) for path in files)
    return {name: hashlib.sha256(_content(path)).hexdigest() for name, path in named if _is_determined(name)}


def _content(path: Path) -> bytes:
    """A file's bytes; of a tokenizer's, without what transformers notes of how it was loaded and used last."""
    content = path.read_bytes()
    try:
        values = json.loads(content) if path.name == "tokenizer_config.json" else None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        return content
    return json.dumps({k: v for k, v in values.items() if k not in USED}).encode()


def _is_determined(name: str) -> bool:
    return Path(name).name not in TIMED


def try_case(case: Case, template: Path, expected: dict[str, Any], place: Path) -> dict[str, Any]:
    """Damages a file in a copy of the template, repeats the command and says how that ended."""
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=place))
    try:
        shutil.copytree(template, folder, dirs_exist_ok=True)
        file = folder / case.file
        content = DAMAGES[case.damage](file.read_bytes())
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        outcome = repeat(case.state, folder)
        verdict = judge(case, outcome, folder, content, expected)
        verdict, _, detail = verdict.partition(": ")
        return {
            "verdict": verdict,
            "detail": detail,
            "status": outcome.status,
            "said": outcome.last_words,
            "seconds": outcome.seconds,
        }
    finally:
        shutil.rmtree(folder)


def judge(case: Case, outcome: Outcome, folder: Path, content: bytes | None, expected: dict[str, Any]) -> str:
    """`refused`, `rebuilt` or `harmless`, or one of the faults, after a colon with what differs."""
    if outcome.ending == "refused":
        named = {case.file, *Path(case.file).parts[2:]} - {"config.json"}
        return "refused" if any(name in outcome.line for name in named) else "unclear"
    if outcome.ending != "accepted":
        return outcome.ending
    result = result_of(case.state, folder)
    differs = [name for name in {**expected["result"], **result} if result.get(name) != expected["result"].get(name)]
    if differs:
        return f"silent: {', '.join(sorted(differs)[:3])} differ"
    file = folder / case.file
    still = file.read_bytes() == content if file.exists() else content is None
    if case.state.command[0] == "push":
        return "silent: pushed" if content is not None and content in pushed_bytes(folder, file.name) else "harmless"
    if case.state.command[0] != "run":
        return "harmless"
    if still and case.file in expected["files"] and file.name not in IDLE:
        said = any(NOTICED.search(line) and file.name in line for line in outcome.err.splitlines())
        return "harmless" if said else "silent: left damaged"
    decides = _is_determined(case.file) and not {"report", "examples"} & set(file.parts)
    return "rebuilt" if decides else "harmless"


def main() -> None:
    """Tries what is left to try and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "faults", help="where runs and results are kept"
    )
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time")
    parser.add_argument("--state", default="", help="regular expression that the states have to match")
    parser.add_argument("--only", default="", help="regular expression that the cases have to match")
    parser.add_argument("--sample", type=int, help="try so many cases of each state, drawn at random")
    parser.add_argument("--list", action="store_true", help="list the cases and try none")
    arguments = parser.parse_args()
    from support.hub_server import HubServer

    with HubServer() as hub:
        prepare(hub.endpoint)
        results, place = Results(arguments.folder / "damage.jsonl"), arguments.folder / "damage"
        place.mkdir(parents=True, exist_ok=True)
        for state in (state for state in STATES if re.search(arguments.state, state.name)):
            template = make_template(state, place)
            cases = list(cases_of(state, template))
            if arguments.sample is not None:
                cases = random.Random(0).sample(cases, min(arguments.sample, len(cases)))
            cases = results.left(cases, only=arguments.only)
            if arguments.list:
                print(*cases, sep="\n")
            elif cases:
                work = partial(try_case, template=template, expected=expect(state, template, place), place=place)
                for case, found in side_by_side(cases, work, arguments.jobs):
                    row = results.add(str(case), state=state.name, file=case.file, damage=case.damage, **found)
                    print(f"{row['verdict']:>9} {case}: {found['detail'] or found['said'][:140]}", flush=True)
        write_page(arguments.folder)


def expect(state: State, template: Path, place: Path) -> dict[str, Any]:
    """What the command leaves where nothing is damaged."""
    folder = Path(tempfile.mkdtemp(prefix="whole-", dir=place))
    shutil.copytree(template, folder, dirs_exist_ok=True)
    outcome = repeat(state, folder)
    if outcome.ending != "accepted":
        raise SystemExit(f"{state.name} fails undamaged: {outcome.err[-2000:]}")
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    found = {"result": result_of(state, folder), "files": files}
    shutil.rmtree(folder)
    return found


if __name__ == "__main__":
    from hf_chain.cli import exit_cleanly

    exit_cleanly(main)
