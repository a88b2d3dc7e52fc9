"""The runner of a graft: walks its stages and leaves models, a ledger and a comparison."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from transformers.utils import logging

from hf_chain.hub import PushQueue, pending
from hf_chain.report import write_report
from hf_chain.stages.environment import (
    check_launch,
    describe_environment,
    is_main_process,
    join_processes,
    process_count,
    wait_for_everyone,
)
from hf_chain.stages.graft.encoder_source import encoder_source, member_of_chain
from hf_chain.stages.graft.materials import Conversations
from hf_chain.stages.graft.publishing import Publisher
from hf_chain.stages.graft.recipe import GraftRecipe, GraftStageSettings
from hf_chain.stages.graft.record import SURROGATE, TARGET
from hf_chain.stages.graft.surrogate_stage import SurrogateStage
from hf_chain.stages.graft.target_stage import TargetStage
from hf_chain.stages.graft.validation import check_graft
from hf_chain.stages.graft.vlm_stage import VLMStage
from hf_chain.stages.graft.workplace import Workplace
from hf_chain.stages.ledger import FamilyRecord, Ledger, read_family
from hf_chain.stages.run_lock import only_run
from hf_chain.stages.validation import check_same_processes, check_same_recipe

logger = logging.get_logger(__name__)


def run_graft(recipe: GraftRecipe) -> Path:
    """Walks the stages of a recipe, or what is left of them.

    Killed anywhere, the same call goes on, and ends with the same weights.

    Args:
        recipe (`GraftRecipe`): the recipe.

    Returns:
        `Path`: the folder of the run.

    Raises:
        HfChainError: when the recipe, the data or the machine does not allow the run.
    """
    check_launch()
    join_processes(recipe.training)
    main_process = is_main_process()
    ledger = Ledger(recipe.run_dir)
    place = Workplace(recipe, ledger, Conversations(recipe, main_process), main_process)
    if ledger.path.exists() and (begun := read_family(recipe.run_dir)).recipe:
        check_same_recipe(recipe, begun)
        if _is_finished(place, begun):
            if main_process:
                write_report(recipe.run_dir)
                logger.warning(f"{recipe.name}: nothing is left to do in {recipe.run_dir}")
            return recipe.run_dir
        check_same_processes(recipe.run_dir, begun, process_count())
    if main_process:
        check_graft(recipe, place.conversations, [name for name in place.stage_names if place.is_saved(name)])
    encoder = encoder_source(recipe)
    with only_run(recipe.run_dir) if main_process else nullcontext():
        if main_process:
            ledger.append(
                "run_started",
                recipe=recipe.model_dump(mode="json"),
                plan={},
                environment=describe_environment(),
                encoder=member_of_chain(recipe, encoder),
            )
        wait_for_everyone()
        _make_stages(place, encoder)
    return recipe.run_dir


def _make_stages(place: Workplace, encoder: str) -> None:
    recipe, ledger = place.recipe, place.ledger
    with PushQueue(ledger, recipe.hub) if recipe.hub.push and place.main_process else nullcontext() as pushes:
        publisher = Publisher(place, pushes)
        if recipe.target.new is not None:
            TargetStage(place, recipe.target.new).run()
            publisher.publish(TARGET)
            wait_for_everyone()
        if recipe.needs_surrogate:
            SurrogateStage(place).run()
            publisher.publish(SURROGATE)
            wait_for_everyone()
        for stages in (recipe.stages, recipe.baseline):
            before: GraftStageSettings | None = None
            for settings in stages:
                logger.warning(f"{recipe.name}: {settings.name}")
                VLMStage(place, settings, before, encoder).run()
                publisher.publish(settings.name)
                before = settings
        publisher.finish()
    if place.main_process:
        ledger.append("run_finished")
        write_report(recipe.run_dir)
        logger.warning(f"{recipe.name}: done; open {recipe.run_dir / 'report' / 'index.html'}")


def _is_finished(place: Workplace, family: FamilyRecord) -> bool:
    """Whether every stage is in its folder, with the outcome in its card and, where stages are pushed, on the Hub."""
    hub, names = place.recipe.hub, place.stage_names
    done = all(place.is_saved(name) and family.member(name).card_finished for name in names)
    return bool(family.finished) and done and not (hub.push and pending(place.recipe.run_dir, hub.prefix))
