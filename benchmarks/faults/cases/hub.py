"""Hubs that refuse, break off, answer garbage or nothing, to every command that asks one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import BASE, Case, chain_recipe, graft_recipe

ANSWERS: dict[str, int | str] = {
    "401": 401,
    "403": 403,
    "404": 404,
    "409": 409,
    "418": 418,
    "429": 429,
    "500": 500,
    "503": 503,
    "a page in place of JSON": 200,
    "half an answer": "cut",
    "a broken connection": "hang_up",
}
ALWAYS = 10_000
"""Times an answer is given, which no patience outlasts."""

PUSH = ("push", "run", "--prefix", "tester/x")
RUN = ("run", "recipe.yaml")
HUB = {"hub": {"push": True, "prefix": "tester/x", "timeout": 2}}

PUSHED: list[tuple[str, str]] = [
    ("the login", "GET /api/whoami"),
    ("a new repository", "POST /api/repos/create"),
    ("what to upload how", "preupload"),
    ("the upload", "/info/lfs|PUT /lfs"),
    ("the commit", "POST .*/commit"),
]
"""Steps of a push, and the requests that a Hub then fails."""


def cases() -> Iterator[Case]:
    """All of this table."""
    for step, pattern in PUSHED:
        for name, answer in ANSWERS.items():
            # huggingface_hub takes 409 for "it is there already", which a new repository may well be.
            expects = "refused/right" if answer == 409 else "refused"
            yield Case(
                "Hubs", f"push, {step}: {name}", expects, "hub", PUSH, _run, faults=((pattern, answer, ALWAYS),)
            )
    for name in ("401", "404", "503", "a page in place of JSON", "a broken connection"):
        fault = (("GET /api/whoami", ANSWERS[name], ALWAYS),)
        yield Case("Hubs", f"run, the login: {name}", "refused", "hub", RUN, chain_recipe(HUB), faults=fault)
    for name, answer in ANSWERS.items():
        fault = (("POST .*/commit|PUT", answer, ALWAYS),)
        expects = "refused/right" if answer == 409 else "refused"
        yield Case(
            "Hubs",
            f"run, its pushes: {name}",
            expects,
            "hf-chain push",
            RUN,
            chain_recipe(HUB),
            faults=fault,
            early=False,
        )
    for what, command, write in ASKING:
        for name in (
            "401",
            "403",
            "404",
            "429",
            "503",
            "a page in place of JSON",
            "half an answer",
            "a broken connection",
        ):
            fault = (("you/thing", ANSWERS[name], ALWAYS),)
            yield Case("Hubs", f"{what}: {name}", "refused", "you/thing", command, write, faults=fault)
    for times, step in ((1, "POST .*/commit"), (2, "preupload"), (1, "PUT /lfs")):
        for answer in (503, "hang_up"):
            name = f"push, {answer} {times} times at {step}, then well"
            yield Case("Hubs", name, "right", "", PUSH, _run, faults=((step, answer, times),))
    yield Case(
        "Hubs",
        "push, without a token",
        "refused",
        "login|logged|token",
        PUSH,
        _run,
        faults=(),
        variables={"HF_TOKEN": ""},
    )
    yield Case(
        "Hubs",
        "push, with a token nobody has",
        "refused",
        "token|401",
        PUSH,
        _run,
        faults=(),
        variables={"HF_TOKEN": "hf_no"},
    )
    yield Case("Hubs", "push, to another's name", "refused", "other/x|403", (*PUSH[:3], "other/x"), _run, faults=())
    yield Case("Hubs", "push, to nobody", "refused", "hub|connect", PUSH, _run)


def _run(folder: Path) -> None:
    shutil.copytree(folder / BASE / "run", folder / "run")


def _asks(write: Callable[[dict[str, Any]], Callable[[Path], None]], place: str) -> Callable[[Path], None]:
    return write({place: "you/thing"})


ASKING: list[tuple[str, tuple[str, ...], Callable[[Path], None] | None]] = [
    ("a model to grow", ("grow", "you/thing", "out", "--vision-width", "64"), None),
    ("a model to cut", ("surrogate", "you/thing", "out", "--replaced", "2-4", "--method", "inherit"), None),
    ("a model to chat with", ("chat", "you/thing"), None),
    ("a tokenizer", RUN, _asks(chain_recipe, "tokenizer.name_or_path")),
    ("data", RUN, chain_recipe({"data": {"source": "you/thing", "caption_column": "text"}}, scenes=False)),
    ("a target", RUN, _asks(graft_recipe, "target.name_or_path")),
    ("an encoder", RUN, _asks(graft_recipe, "encoder.name_or_path")),
]
