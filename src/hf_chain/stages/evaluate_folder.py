"""Evaluating a model on the data of a recipe: what `hf-chain eval` does."""

from __future__ import annotations

from transformers import AutoProcessor, CLIPModel

from hf_chain.data import load_splits
from hf_chain.errors import HfChainError
from hf_chain.evaluation import evaluate_clip
from hf_chain.stages.family_data import evaluated_splits, evaluation_options
from hf_chain.stages.recipe import Recipe


def evaluate_folder(model_name: str, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Split name to metrics of any CLIP model, on the splits the recipe evaluates.

    Args:
        model_name (`str`): folder or Hub name of a model with its processor.
        recipe (`Recipe`): its data and evaluation sections are used.

    Raises:
        HfChainError: when the model or the data cannot be loaded.
    """
    try:
        model, processor = CLIPModel.from_pretrained(model_name), AutoProcessor.from_pretrained(model_name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HfChainError(f"{model_name} cannot be loaded as a CLIP model with its processor: {reason}") from error
    splits = {name: rows for name, rows in load_splits(recipe.data).items() if name in evaluated_splits(recipe)}
    options = evaluation_options(recipe, splits)
    return {name: evaluate_clip(model, processor, rows, **options).metrics for name, rows in splits.items()}
