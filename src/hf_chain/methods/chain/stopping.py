"""Ends the training of a member when what is asked for is reached; decided by the main process from the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl

from hf_chain.data.fingerprint import Fingerprint, difference
from hf_chain.errors import HfChainError
from hf_chain.evaluation import Evaluation
from hf_chain.evaluation.metrics import metric_of
from hf_chain.methods.chain.chain_recipe import ChainRecipe
from hf_chain.methods.chain.until import CAP, Goal, UntilSettings
from hf_chain.runs.ledger import FamilyRecord, MemberRecord, read_family
from hf_chain.trainer.stage_trainer import stop

if TYPE_CHECKING:
    from hf_chain.trainer import ChainTrainer


class StopWhenReached(TrainerCallback):
    """Measures a member on its way, and ends its training there, or its trunk where it has one.

    What the ledger knows of a step is not measured again, so that a repetition after a kill decides the same.

    Args:
        trainer (`ChainTrainer`): the trainer.
        until (`UntilSettings`): what is asked for.
        measure (`Callable`): evaluates the member as it is.
        record (`Callable`): what the ledger knows of the member.
        note (`Callable`, *optional*): writes an event of it there; given in the main process alone.
        before (`int`): MACs of a cache that was filled before the training.
    """

    def __init__(
        self,
        trainer: ChainTrainer,
        until: UntilSettings,
        measure: Callable[[], Evaluation],
        record: Callable[[], MemberRecord],
        note: Callable[..., None] | None,
        before: int = 0,
    ) -> None:
        if trainer.engine.is_deepspeed:
            raise HfChainError("until is set, and DeepSpeed keeps the weights that it measures: use plain processes")
        self.trainer, self.until, self.before = trainer, until, before
        self._measured, self._record, self._note = measure, record, note
        self.steps: list[int] = []

    def on_train_begin(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Takes no step more where the checkpoint is that of the step that was the last."""
        self.steps = self.until.steps(state.max_steps, args.trunk_decay)
        if self.trainer.trunk is None and self._is_over(state.global_step):
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Measures, and decides."""
        step, trunk = state.global_step, self.trainer.trunk
        rate = trunk.rate if trunk is not None else None
        if step not in self.steps or (rate is not None and step > rate.trunk):
            return
        if self._note is not None and all(point["step"] != step for point in self._record().curve):
            self._measure(step, self._note)
        if not self._is_over(step):
            return
        if trunk is None or rate is None:
            stop(args, control)
        # A rate that still rises has nothing to fall from.
        elif rate.warmup <= step < rate.trunk:
            trunk.end_at(step)

    def _measure(self, step: int, note: Callable[..., None]) -> None:
        began = time.perf_counter()
        # What follows draws the same numbers whether this step was measured or read.
        with torch.random.fork_rng(devices=[]):
            found = self._measured()
        if self.trainer.meters is not None:
            self.trainer.meters.leave_out(time.perf_counter() - began)
        cost = self.trainer.step_cost(self.trainer.state.max_steps)
        note(
            "measured",
            step=step,
            samples=step * cost.samples_per_step,
            training_macs=cost.total_macs(step) + self.before,
            split=self.until.split,
            metrics=found.metrics,
            evaluation_macs=found.macs,
        )

    def _is_over(self, step: int) -> bool:
        """For all processes, which all have to call it."""
        over = False
        if self._note is not None:
            record = self._record()
            curve = [point for point in record.curve if point["step"] <= step]
            over = goal_of(record, self.until).verdict(curve) is not None
        return self.trainer.engine.any(over)


def goal_of(record: MemberRecord, until: UntilSettings) -> Goal:
    """What the ledger says a member is trained for."""
    return Goal(record.until["metric"], record.until["split"], record.until["target"], until.patience)


def outcome(record: MemberRecord, until: UntilSettings, steps: int, cap: int) -> dict[str, Any]:
    """How a training ended, as `MemberRecord.stopped`.

    Args:
        record (`MemberRecord`): with its whole curve.
        until (`UntilSettings`): what was asked for.
        steps (`int`): steps done.
        cap (`int`): steps at most.
    """
    step = record.curve[-1]["step"] if record.curve else steps
    return {"why": goal_of(record, until).verdict(record.curve) or CAP, "step": step, "steps": steps, "cap": cap}


def aim(recipe: ChainRecipe, member: Any, known: FamilyRecord) -> dict[str, Any]:
    """What a member is trained for, as `MemberRecord.until`, before its training begins.

    Args:
        recipe (`ChainRecipe`): the recipe.
        member (`MemberSettings`): the member, which has been evaluated as it enters training.
        known (`FamilyRecord`): the run so far.

    Raises:
        HfChainError: when there is nothing to compare with.
    """
    until: Any = recipe.until_of(member)
    metric = _metric_of(recipe, member, until, known.member(member.name).metrics_before)
    aimed = {"metric": metric, "split": until.split}
    if until.target is not None:
        return aimed | {"target": until.target}
    lower = metric_of(metric).lower_is_better
    if until.margin is not None:
        parent = recipe.parent_of(member).name
        delivered = _value(known.member(parent), until.split, metric, known)
        target = delivered - until.margin if lower else delivered + until.margin
        return aimed | {"target": target, "words": f" ({until.margin:g} better than {parent})"}
    twins = same_size(recipe, member.name, until.curve, known.member(member.name).parameters)
    best = (min if lower else max)(_value(twin, until.split, metric, read_family(until.curve)) for twin in twins)
    return aimed | {"target": best, "words": f" (reached in {until.curve})"}


def check_metrics(recipe: ChainRecipe, found: dict[str, dict[str, float]]) -> None:
    """Checks that what decides is measured, of all members as soon as one has been evaluated.

    Args:
        recipe (`ChainRecipe`): the recipe.
        found (`dict`): split to metrics of any member.

    Raises:
        HfChainError: naming the metric and those there are.
    """
    for member in recipe.members:
        if (until := recipe.until_of(member)) is not None:
            _metric_of(recipe, member, until, found)


def check_curves(recipe: ChainRecipe, parameters: dict[str, int], data: Mapping[str, Fingerprint]) -> None:
    """Checks the runs whose curves say what is asked for, before anything is trained.

    Args:
        recipe (`ChainRecipe`): the recipe.
        parameters (`dict[str, int]`): name of a member to its size.
        data (`Mapping`): split to what it holds.

    Raises:
        HfChainError: when one is not there or not finished, has no member of that size, or was measured on other data.
    """
    for member in recipe.members:
        until = recipe.until_of(member)
        if until is not None and until.curve is not None:
            same_size(recipe, member.name, until.curve, parameters[member.name])
            there = read_family(until.curve).data.get(until.split)
            if there is not None and (words := difference(there, data[until.split])) is not None:
                raise HfChainError(
                    f"members.{member.name}: until.curve is {until.curve}, and {until.split} is another one here, "
                    f"{words}: evaluate both on the same data"
                )


def same_size(recipe: ChainRecipe, member: str, run_dir: str, parameters: int) -> list[MemberRecord]:
    """The finished members of another run that have the size of one here.

    Args:
        recipe (`ChainRecipe`): the recipe of this run.
        member (`str`): the member.
        run_dir (`str`): folder of the other run.
        parameters (`int`): size of the member.

    Raises:
        HfChainError: when there are none, or they were evaluated on other samples.
    """
    family, where = read_family(run_dir), f"members.{member}: until.curve is {run_dir}"
    if not family.finished:
        raise HfChainError(f"{where}, which is not finished: run it to its end first")
    most = (family.recipe.get("evaluation") or {}).get("max_samples")
    if most != recipe.evaluation.max_samples:
        raise HfChainError(
            f"{where}, whose evaluation.max_samples is {most}, and here it is {recipe.evaluation.max_samples}: "
            "evaluate both on the same samples"
        )
    if found := [one for one in family.members if one.parameters == parameters and one.metrics_after]:
        return found
    sizes = ", ".join(f"{one.name} {one.parameters:,}" for one in family.members)
    raise HfChainError(f"{where}, which has no member of {parameters:,} parameters ({sizes}): give another run")


def _metric_of(recipe: ChainRecipe, member: Any, until: UntilSettings, found: dict[str, dict[str, float]]) -> str:
    known = found.get(until.split, {})
    wanted = [until.metric] if until.metric else recipe.paradigm.primary_metrics
    for name in wanted:
        if name in known:
            return name
    raise HfChainError(
        f"members.{member.name}: until.metric {wanted[0]} is not measured on {until.split}: use "
        f"{' or '.join(known) or 'another split'}"
    )


def _value(record: MemberRecord, split: str, metric: str, family: FamilyRecord) -> float:
    try:
        return record.metrics_after[split][metric]
    except KeyError:
        raise HfChainError(
            f"until compares with {metric} of {record.name} on {split}, which the ledger of {family.run_dir} does not "
            "have: measure it there, or give a target"
        ) from None
