"""The runner: walks the members of a recipe and leaves a family, a ledger and a report."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from transformers.utils import logging

from hf_chain.cost import plan_table
from hf_chain.hub import PushQueue, pending
from hf_chain.report import write_report
from hf_chain.stages.environment import (
    check_launch,
    describe_environment,
    is_main_process,
    join_processes,
    process_count,
)
from hf_chain.stages.family_data import FamilyData, load_family_data
from hf_chain.stages.ledger import FamilyRecord, Ledger, read_family
from hf_chain.stages.member import MemberStage
from hf_chain.stages.planning import family_cost
from hf_chain.stages.recipe import Recipe
from hf_chain.stages.run_lock import only_run
from hf_chain.stages.validation import check_batches, check_recipe, check_same_processes, check_same_recipe

logger = logging.get_logger(__name__)


def run(recipe: Recipe) -> Path:
    """Trains the family of a recipe, or what is left of it.

    Killed anywhere, the same call goes on, and ends with the same weights.

    Args:
        recipe (`Recipe`): the recipe.

    Returns:
        `Path`: the folder of the run.

    Raises:
        HfChainError: when the recipe, the data or the machine does not allow the run.
    """
    check_launch()
    join_processes(recipe.training)
    main_process = is_main_process()
    run_dir, ledger = recipe.run_dir, Ledger(recipe.run_dir)
    begun = read_family(run_dir) if ledger.path.exists() else None
    if begun is not None and begun.recipe:
        check_same_recipe(recipe, begun)
        if _is_finished(recipe, begun):
            if main_process:
                write_report(run_dir)
                logger.warning(f"{recipe.name}: nothing is left to do in {run_dir}")
            return run_dir
        check_same_processes(run_dir, begun, process_count())
    planned = family_cost(recipe)
    if main_process:
        check_recipe(recipe, planned)
    data = load_family_data(recipe, run_dir, main_process)
    check_batches(recipe, data, process_count())
    cost = family_cost(recipe, data.samples_per_epoch, len(data.processor.tokenizer))
    with only_run(run_dir) if main_process else nullcontext():
        if main_process:
            logger.warning(f"{recipe.name}: the plan\n\n{plan_table(cost)}\n")
            _note_start(ledger, recipe, cost.to_json())
        _make_members(recipe, data, ledger, main_process)
    return run_dir


def _make_members(recipe: Recipe, data: FamilyData, ledger: Ledger, main_process: bool) -> None:
    run_dir = recipe.run_dir
    with PushQueue(ledger, recipe.hub) if recipe.hub.push and main_process else nullcontext() as pushes:
        for index, member in enumerate(recipe.members):
            stage = MemberStage(recipe, index, data, ledger, main_process)
            if main_process:
                logger.warning(f"{recipe.name}: member {index + 1} of {len(recipe.members)}, {member.name}")
            stage.run()
            if pushes is not None and member.name in {record.name for record in pending(run_dir, recipe.hub.prefix)}:
                pushes.submit(member.name, stage.folder, stage.record.weights_sha256)
            if main_process:
                write_report(run_dir)
    if main_process:
        ledger.append("run_finished")
        write_report(run_dir)
        logger.warning(f"{recipe.name}: done; open {run_dir / 'report' / 'index.html'}")


def _is_finished(recipe: Recipe, family: FamilyRecord) -> bool:
    """Whether every member is in its folder and, where members are pushed, on the Hub."""
    saved = all(
        family.member(member.name).status == "saved" and (recipe.run_dir / recipe.folder_name(index)).is_dir()
        for index, member in enumerate(recipe.members)
    )
    return bool(family.finished) and saved and not (recipe.hub.push and pending(recipe.run_dir, recipe.hub.prefix))


def _note_start(ledger: Ledger, recipe: Recipe, plan: dict) -> None:
    environment = describe_environment()
    ledger.append("run_started", recipe=recipe.model_dump(mode="json"), plan=plan, environment=environment)
