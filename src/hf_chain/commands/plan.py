"""What `hf-chain plan` does: says what a recipe costs, of either method, before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hf_chain.methods.chain.recipe import Recipe

if TYPE_CHECKING:
    from hf_chain.methods.graft.recipe import GraftRecipe


def plan_recipe(recipe: Recipe | GraftRecipe, tflops_per_second: float | None = None) -> tuple[dict[str, Any], str]:
    """Counts what a recipe costs; starts no torch for a chain.

    Args:
        recipe (`Recipe` or `GraftRecipe`): the recipe.
        tflops_per_second (`float`, *optional*): sustained throughput; adds hours.

    Returns:
        The plan as a script wants it, and as Markdown for people, with the memory on one device.

    Raises:
        HfChainError: when the recipe cannot be run as it is, or data or configurations cannot be read.
    """
    from hf_chain.cost import memory_table, plan_table

    if isinstance(recipe, Recipe):
        from hf_chain.methods.chain.planning import check_growth, family_cost, memory_plan

        cost = family_cost(recipe)
        check_growth(recipe, cost)
        values, table, memory = cost.to_json(), plan_table(cost, tflops_per_second), memory_plan(recipe, cost)
    else:
        from hf_chain.methods.graft.plan import graft_table
        from hf_chain.methods.graft.planning import plan_graft

        plan = plan_graft(recipe)
        values, table, memory = plan.to_json(), graft_table(plan, tflops_per_second), memory_table(plan.memory)
    return values, f"{table}\n\nMemory on one device\n\n{memory}"
