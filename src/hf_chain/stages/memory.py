"""Memory a recipe needs on a device."""

from __future__ import annotations

from hf_chain.cost import FamilyCost, clip_memory, memory_table
from hf_chain.stages.recipe import Recipe
from hf_chain.trainer.precision import uses_bfloat16


def memory_plan(recipe: Recipe, cost: FamilyCost) -> str:
    """Markdown table of parameters, gradients, optimiser, activations and teacher of every member, in bytes."""
    estimates = {}
    for member, planned in zip(recipe.members, cost.members, strict=True):
        training = recipe.training_of(member)
        batch = training.get("per_device_train_batch_size", 8)
        estimates[member.name] = clip_memory(
            planned.config,
            training.get("micro_batch_size") or batch,
            captions=planned.captions,
            image_token_keep=planned.image_token_keep,
            bf16=uses_bfloat16(training.get("bf16", False)),
            teacher=planned.teacher if planned.cached_views is None else None,
        )
    return memory_table(estimates)
