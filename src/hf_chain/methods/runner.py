"""The runner: walks the steps of a method and leaves models, a ledger and a report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hf_chain.hub import PushQueue, check_pushed, mend_card, pending
from hf_chain.hub.catch_up import refresh_card
from hf_chain.methods.context import RunContext, Step
from hf_chain.report import Sheet, try_report
from hf_chain.runs.environment import (
    check_launch,
    describe_environment,
    join_processes,
    process_count,
    wait_for_everyone,
)
from hf_chain.runs.ledger import FamilyRecord, read_family
from hf_chain.runs.lock import only_run
from hf_chain.runs.resume import check_same_processes, read_begun, warn_other_versions

logger = logging.get_logger(__name__)


@dataclass
class Method(ABC):
    """A method at work on a recipe: what the runner asks of it.

    Args:
        context (`RunContext`): what its steps share.
    """

    context: RunContext

    cards_tell_outcome = False
    """Whether cards tell how the run ended, and so are written anew at its end."""

    @abstractmethod
    def check(self, finished: bool) -> None:
        """Checks recipe and machine before the run takes its lock. The main process does.

        Args:
            finished (`bool`): whether nothing is left to do.
        """

    @abstractmethod
    def prepare(self, begun: FamilyRecord) -> None:
        """Loads what the steps need, checks it, and notes the start with `note_start`; in every process.

        Args:
            begun (`FamilyRecord`): what an earlier attempt has left.
        """

    @abstractmethod
    def steps(self) -> Iterator[Step]:
        """The steps in order; the plan of a graft walks the same ones."""

    def before(self, step: Step) -> None:  # noqa: B027
        """What is done right before a step, in every process."""

    @abstractmethod
    def look_after(self, begun: FamilyRecord) -> None:
        """Compares the data of a finished run and mends what lies beside its steps. The main process does."""

    @abstractmethod
    def sheet(self) -> Sheet:
        """What the report of the run shows."""

    def note_start(self, begun: FamilyRecord, **fields: Any) -> None:
        """Notes that the run begins or goes on, and warns of other versions than before."""
        warn_other_versions(begun)
        recipe = self.context.recipe.model_dump(mode="json")
        self.context.ledger.append("run_started", recipe=recipe, environment=describe_environment(), **fields)


def run_method(method: Method) -> Path:
    """Walks the steps of a run, or what is left of them.

    Killed anywhere, the same call goes on, and ends with the same weights.

    Args:
        method (`Method`): the method, with its recipe.

    Returns:
        `Path`: the folder of the run.

    Raises:
        HfChainError: when the recipe, the data or the machine does not allow the run; and at its end, when everything
            is saved but could not be pushed.
    """
    context = method.context
    recipe, run_dir, main_process = context.recipe, context.recipe.run_dir, context.main_process
    check_launch()
    join_processes(recipe.training)
    begun = read_begun(recipe)
    finished = _is_finished(method, begun)
    if not finished:
        check_same_processes(run_dir, begun, process_count())
    if main_process:
        method.check(finished)
    with only_run(run_dir) if main_process else nullcontext():
        if main_process:
            # Whoever held the lock until now may have begun it.
            begun = read_begun(recipe)
            _check_saved_steps(context, begun)
        if not finished:
            method.prepare(begun)
            wait_for_everyone()
            _make_steps(method)
        elif main_process:
            method.look_after(begun)
            try_report(run_dir, method.sheet)
            logger.warning(f"{recipe.name}: nothing is left to do in {run_dir}")
    return run_dir


def _make_steps(method: Method) -> None:
    context = method.context
    recipe, run_dir, main_process = context.recipe, context.recipe.run_dir, context.main_process
    with PushQueue(context.ledger, recipe.hub) if recipe.hub.push and main_process else nullcontext() as pushes:
        publisher = _Publisher(method, pushes)
        for step in method.steps():
            if main_process:
                place = f"{context.index(step.name) + 1} of {len(context.step_names)}"
                logger.warning(f"{recipe.name}: step {place}, {step.name}")
            method.before(step)
            step.run()
            if main_process:
                publisher.publish(step.name)
            wait_for_everyone()
        if main_process and method.cards_tell_outcome:
            publisher.tell_outcome()
    if main_process:
        context.ledger.append("run_finished")
        page = try_report(run_dir, method.sheet)
        logger.warning(f"{recipe.name}: done; open {page or run_dir}")
        check_pushed(run_dir, recipe.hub)


def _is_finished(method: Method, family: FamilyRecord) -> bool:
    """Whether every step is in its folder, with the outcome in its card where cards tell it, and on the Hub."""
    context = method.context
    hub, names = context.recipe.hub, context.step_names
    done = all(map(context.is_saved, names))
    if method.cards_tell_outcome:
        done = done and all(family.member(name).card_finished for name in names)
    return bool(family.finished) and done and not (hub.push and pending(context.recipe.run_dir, hub.prefix))


def _check_saved_steps(context: RunContext, begun: FamilyRecord) -> None:
    for name in context.saved_steps():
        context.check_saved(name)
        mend_card(begun, begun.member(name), context.recipe.hub, context.write_card)


@dataclass
class _Publisher:
    """Shows every step once it is saved: on the Hub, and in the report of what is there. The main process has one."""

    method: Method
    pushes: PushQueue | None
    _old: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Notes what an earlier attempt has shown already."""
        self._old = frozenset(self.method.context.saved_steps()) if self.method.context.main_process else frozenset()

    def publish(self, step: str) -> None:
        """Queues the push of a saved step unless it is on the Hub, and writes the report.

        Where nothing is to be pushed after the last step, the run is at its end, and writes its report there.
        """
        recipe = self.method.context.recipe
        if self.pushes is not None and step in {one.name for one in pending(recipe.run_dir, recipe.hub.prefix)}:
            self._refresh(step)
            self._push(step)
        at_end = self.pushes is None and step == self.method.context.step_names[-1]
        if step not in self._old and not at_end:
            try_report(recipe.run_dir, self.method.sheet)

    def tell_outcome(self) -> None:
        """Writes the cards anew that do not tell the outcome: the last steps had not been run when they were."""
        context = self.method.context
        if self.pushes is not None:
            # A folder must not change while it is pushed.
            self.pushes.collect(wait=context.recipe.hub.timeout)
        for step in context.step_names:
            if not context.record(step).card_finished:
                self._refresh(step, always=True)
                context.note("card_finished", step)
                self._push(step)

    def _refresh(self, step: str, always: bool = False) -> None:
        context = self.method.context
        family = read_family(context.recipe.run_dir)
        refresh_card(family, family.member(step), context.recipe.hub, context.write_card, always)

    def _push(self, step: str) -> None:
        if self.pushes is not None:
            context = self.method.context
            self.pushes.submit(step, context.folder(step), context.record(step).weights_sha256)
