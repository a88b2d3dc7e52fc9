"""Moments of a run: a process says when it comes to a certain call inside a phase, so that it can be killed there."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

PHASES = {
    "building": (
        "hf_chain.methods.chain.member:MemberStage._build",
        "hf_chain.methods.graft.surrogate_stage:choose_cut",
        "hf_chain.methods.graft.surrogate_stage:build_surrogate",
        "hf_chain.methods.graft.surrogate_stage:fit_translator",
        "hf_chain.methods.graft.vlm_stage:VLMStage._build",
    ),
    "training": ("hf_chain.methods.chain.member:train_or_resume", "hf_chain.methods.graft.training:train_or_resume"),
    "saving": (
        "hf_chain.methods.chain.member:MemberStage._save",
        "hf_chain.methods.graft.vlm_stage:VLMStage._save",
        "transformers:Trainer._save_checkpoint",
    ),
    "evaluating": (
        "hf_chain.methods.chain.member:evaluate_clip",
        "hf_chain.methods.graft.target_stage:ask",
        "hf_chain.methods.graft.vlm_stage:ask",
    ),
    "pushing": ("hf_chain.hub.push:push_member",),
}
"""What a run does, and the functions in which it does that; the innermost counts."""
PACKAGES = re.compile(r"/(hf_chain|transformers|accelerate|torch|safetensors|datasets|huggingface_hub|peft)/(.*)\.py$")
"""Whose calls count: parsers of cards and patterns in Python's own library would outnumber them."""
VARIABLE = "HF_CHAIN_MOMENT"


@dataclass(frozen=True)
class Moment:
    """The `at`-th call of Python inside a phase.

    Args:
        phase (`str`): one of `PHASES`.
        at (`int`): which call; 0 never comes and lets all calls be counted.
        mark (`str`): file that then holds where this is, or at the end of the run the calls of every phase.
        pause (`float`): seconds for which the process then stands still.
        rank (`int`): the process, where several run.
    """

    phase: str
    at: int
    mark: str
    pause: float = 0.0
    rank: int = 0

    def variables(self) -> dict[str, str]:
        """What tells a launched process."""
        return {VARIABLE: json.dumps(asdict(self))}


def watched(moment: Moment, command: Callable[[], Any]) -> None:
    """Runs `command` and marks the moment."""
    counts: Counter[str] = Counter()
    here = threading.local()

    def watch(frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "c_call") or not (place := known(frame.f_code.co_filename)):
            return
        phase = here.phase
        counts[phase] += 1
        if phase == moment.phase and counts[phase] == moment.at:
            calls = f" before {argument.__qualname__}" if event == "c_call" else ""
            # Whoever sees the file finds its content in it.
            staging = Path(f"{moment.mark}.new")
            staging.write_text(f"{place}.{frame.f_code.co_qualname}{calls}", encoding="utf-8")
            staging.replace(moment.mark)
            time.sleep(moment.pause)

    def inside(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            before = getattr(here, "phase", None)
            here.phase = phase
            sys.setprofile(watch)
            try:
                return function(*arguments, **options)
            finally:
                here.phase = before
                if before is None:
                    sys.setprofile(None)

        return call

    for phase, places in PHASES.items():
        for place in places:
            module, _, name = place.partition(":")
            owner: Any = import_module(module)
            *parents, last = name.split(".")
            for parent in parents:
                owner = getattr(owner, parent)
            setattr(owner, last, inside(phase, getattr(owner, last)))
    try:
        command()
    finally:
        if not moment.at:
            Path(moment.mark).write_text(json.dumps(counts), encoding="utf-8")


@functools.cache
def known(file: str) -> str:
    """The module of a file of `PACKAGES`, else nothing."""
    found = PACKAGES.search(file)
    return f"{found[1]}.{found[2].replace('/', '.')}" if found else ""


def main() -> None:
    """`hf-chain`, watched in one process."""
    from hf_chain.cli import main as command

    moment = Moment(**json.loads(os.environ[VARIABLE])) if os.environ.get(VARIABLE) else None
    if moment is None or int(os.environ.get("RANK", "0")) != moment.rank:
        command()
    else:
        watched(moment, command)
