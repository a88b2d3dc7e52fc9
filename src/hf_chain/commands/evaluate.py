"""What `hf-chain eval` does: evaluates a saved member of a chain, or a grafted model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_chain.evaluation import evaluate_clip
from hf_chain.methods.chain.family_data import evaluation_data, evaluation_options
from hf_chain.methods.chain.published import load_clip_with_processor
from hf_chain.methods.chain.recipe import Recipe
from hf_chain.runs.environment import check_launch

if TYPE_CHECKING:
    from hf_chain.methods.graft.recipe import GraftRecipe


def evaluate_any(name: str, recipe: Recipe | GraftRecipe) -> dict[str, dict[str, float]]:
    """Split name to metrics of the kind of model that a recipe is about; see `evaluate_folder`, `evaluate_model`."""
    return evaluate_folder(name, recipe) if isinstance(recipe, Recipe) else evaluate_model(name, recipe)


def evaluate_folder(model_name: str, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Split name to metrics of any CLIP model, on the splits the recipe evaluates.

    Args:
        model_name (`str`): folder or Hub name of a model with its processor.
        recipe (`Recipe`): its data and evaluation sections are used.

    Raises:
        HfChainError: when the model or the data cannot be loaded.
    """
    model, processor = load_clip_with_processor(model_name)
    splits = evaluation_data(recipe)
    options = evaluation_options(recipe, splits)
    return {name: evaluate_clip(model, processor, rows, **options).metrics for name, rows in splits.items()}


def evaluate_model(name: str, recipe: GraftRecipe) -> dict[str, dict[str, float]]:
    """Split name to metrics of any grafted model, on the data that the recipe evaluates.

    Args:
        name (`str`): folder or Hub name of a grafted model with its processor.
        recipe (`GraftRecipe`): its `data` and `evaluation` sections are used.

    Raises:
        HfChainError: when the model or the data cannot be loaded, or too many questions cannot be asked.
    """
    from hf_chain.methods.graft.data import Conversations
    from hf_chain.methods.graft.evaluation import ask
    from hf_chain.methods.graft.headline import load_grafted

    check_launch()
    model, processor = load_grafted(name)
    questions = Conversations(recipe, main_process=False).questions(processor)
    return {split: found.metrics for split, found in ask(model, processor, questions, recipe.evaluation).items()}
