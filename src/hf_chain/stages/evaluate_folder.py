"""Evaluating a model on the data of a recipe: what `hf-chain eval` does."""

from __future__ import annotations

from hf_chain.evaluation import evaluate_clip
from hf_chain.stages.family_data import evaluation_data, evaluation_options
from hf_chain.stages.published import load_clip_with_processor
from hf_chain.stages.recipe import Recipe


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
