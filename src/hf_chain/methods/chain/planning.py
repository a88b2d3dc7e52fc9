"""What a recipe will cost in compute and memory, and whether its members can grow; for CLIPs it starts no torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hf_chain.cost import FamilyCost, memory_table
from hf_chain.errors import HfChainError
from hf_chain.growth.shapes import EXACT_IN_WIDTH, check_shapes
from hf_chain.methods.chain.chain_recipe import ChainRecipe
from hf_chain.runs.environment import process_count
from hf_chain.tasks.paradigm import DataSize


def family_cost(recipe: ChainRecipe, size: DataSize | None = None) -> FamilyCost:
    """Cost of the chain a recipe describes and of training its members independently, on this launch's processes.

    Args:
        recipe (`ChainRecipe`): the recipe.
        size (`DataSize`, *optional*): the data, once they are read; else what settings and splits say of them.

    Raises:
        HfChainError: when an epoch, or a member's training, has no whole batch.
    """
    paradigm = recipe.paradigm
    size = size or paradigm.planned_size()
    configs, costs = planned_configs(recipe, size), []
    for member in recipe.members:
        _check_batch(recipe, member, size.samples_per_epoch)
        teacher = _predecessor(recipe, member, configs) if recipe.is_taught(member) else None
        training, batch = recipe.training_of(member), global_batch(recipe, member)
        config = configs[member.name]
        cost = paradigm.member_cost(member, config, teacher, size, training, batch)
        if (until := recipe.until_of(member)) is not None:
            macs = paradigm.evaluation_macs(config, size.only(until.split, until.max_samples))
            evaluations = len(until.steps(cost.steps, training.get("trunk_decay")))
            cost = replace(cost, until_macs=evaluations * macs, may_stop=True)
        costs.append(replace(cost, details={"shape": paradigm.shape(member, config), **cost.details}))
    return FamilyCost(costs, recipe.baseline_epochs or recipe.members[0].epochs)


def planned_configs(recipe: ChainRecipe, size: DataSize | None = None) -> dict[str, Any]:
    """Name of each member to its configuration, as far as cost and growth read it.

    Args:
        recipe (`ChainRecipe`): the recipe.
        size (`DataSize`, *optional*): the data.
    """
    size = size or recipe.paradigm.planned_size()
    return {member.name: recipe.paradigm.planned_config(member, size) for member in recipe.members}


def _predecessor(recipe: ChainRecipe, member: Any, configs: dict[str, Any]) -> Any:
    """Configuration of what a member grows from."""
    parent = recipe.parent_of(member)
    return configs[parent.name] if parent is not None else recipe.paradigm.published_config(recipe.published or "")


def global_batch(recipe: ChainRecipe, member: Any) -> int:
    """Samples of a member's batch over all processes of this launch."""
    training = recipe.training_of(member)
    steps = int(training.get("gradient_accumulation_steps", 1))
    return int(training.get("per_device_train_batch_size", 8)) * steps * process_count()


def _check_batch(recipe: ChainRecipe, member: Any, samples: int) -> None:
    where, batch = f"members.{member.name}", global_batch(recipe, member)
    recipe.paradigm.check_batch(f"{where}: ", batch)
    if member.epochs * samples < 1:
        raise HfChainError(f"{where}.epochs is {member.epochs:g}, less than one of {samples} samples: raise it")
    if batch > samples:
        raise HfChainError(
            f"{where}: a global batch has {batch} samples but the training split only {samples}: lower "
            "training.per_device_train_batch_size"
        )
    if recipe.data.streaming and member.epochs * samples < batch:
        raise HfChainError(
            f"{where}.epochs is {member.epochs:g}, in which the stream has {int(member.epochs * samples)} samples, "
            f"less than a global batch of {batch}: raise it, or lower training.per_device_train_batch_size"
        )


def memory_plan(recipe: ChainRecipe) -> str:
    """Markdown table of parameters, gradients, optimiser, activations and teacher of every member, in bytes."""
    estimates, configs = {}, planned_configs(recipe)
    for member in recipe.members:
        live = recipe.is_taught(member) and not recipe.cache_teacher_features
        teacher = _predecessor(recipe, member, configs) if live else None
        estimates[member.name] = recipe.paradigm.memory(configs[member.name], teacher, recipe.training_of(member))
    return memory_table(estimates)


def check_growth(recipe: ChainRecipe) -> None:
    """Checks that every member can grow from the one that it is said to grow from.

    Raises:
        HfChainError: naming the members and what does not fit.
    """
    configs = planned_configs(recipe)
    for member in recipe.members:
        if (parent := recipe.parent_of(member)) is None:
            continue
        try:
            exact = recipe.operator_of(member) in EXACT_IN_WIDTH
            check_shapes(configs[parent.name], configs[member.name], keep_heads=exact)
        except HfChainError as error:
            raise HfChainError(f"members.{member.name} cannot grow from {parent.name}: {error}") from error
