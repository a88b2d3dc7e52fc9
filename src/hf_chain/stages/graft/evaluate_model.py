"""Asking a grafted model the questions of a recipe: what `hf-chain eval` does with the recipe of a graft."""

from __future__ import annotations

from hf_chain.stages.graft.asking import ask
from hf_chain.stages.graft.grafted import load_grafted
from hf_chain.stages.graft.materials import Conversations
from hf_chain.stages.graft.recipe import GraftRecipe


def evaluate_model(name: str, recipe: GraftRecipe) -> dict[str, dict[str, float]]:
    """Split name to metrics of any grafted model, on the data that the recipe evaluates.

    Args:
        name (`str`): folder or Hub name of a grafted model with its processor.
        recipe (`GraftRecipe`): its `data` and `evaluation` sections are used.

    Raises:
        HfChainError: when the model or the data cannot be loaded, or too many questions cannot be asked.
    """
    model, processor = load_grafted(name)
    questions = Conversations(recipe, main_process=False).questions(processor)
    return {split: found.metrics for split, found in ask(model, processor, questions, recipe.evaluation).items()}
