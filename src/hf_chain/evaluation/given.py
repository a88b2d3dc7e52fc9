"""What an evaluation of a dual encoder is given: whether it can be used at all, before anything is embedded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from datasets import Dataset

from hf_chain.data.prompts import checked_templates
from hf_chain.errors import HfChainError
from hf_chain.evaluation.zero_shot import ClassName


def check_evaluation(
    model: Any,
    processor: Any,
    dataset: Any,
    class_names: Sequence[ClassName] | None,
    templates: Sequence[str],
    batch_size: int,
    max_samples: int | None,
) -> None:
    """Refuses arguments of `evaluate_clip` that would fail late, or measure something else than was meant.

    Raises:
        HfChainError: naming the argument and its value.
    """
    for method in ("get_image_features", "get_text_features"):
        if not hasattr(model, method):
            raise HfChainError(f"the model is a {type(model).__name__} without {method}: give a CLIPModel or its like")
    if model.config.model_type not in ("clip", "chain_clip"):
        raise HfChainError(f"the model is a {type(model).__name__}: give a CLIPModel, whose costs are known")
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not hasattr(processor, "image_processor"):
        raise HfChainError(
            f"the processor is a {type(processor).__name__}, which does not read images and texts: give the one that"
            " was saved with the model"
        )
    rows = model.config.text_config.vocab_size
    if len(tokenizer) > rows:
        raise HfChainError(
            f"the processor's tokenizer has {len(tokenizer)} tokens and the model embeds {rows}: give the processor"
            " that was saved with the model"
        )
    if not isinstance(dataset, Dataset):
        raise HfChainError(f"the evaluation data are a {type(dataset).__name__}: give one split as a datasets.Dataset")
    for name, number in (("batch_size", batch_size), ("max_samples", max_samples)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise HfChainError(f"{name} is {number!r}: give a whole number from 1")
    if class_names is not None:
        _check_names(class_names)
        try:
            checked_templates([templates] if isinstance(templates, str) else templates)
        except ValueError as error:
            raise HfChainError(str(error)) from error


def _check_names(class_names: Any) -> None:
    if isinstance(class_names, str) or not isinstance(class_names, Sequence) or not class_names:
        raise HfChainError(f"class_names is {class_names!r}: give a list with the name, or the names, of each class")
    for number, names in enumerate(class_names):
        texts = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise HfChainError(f"class_names has no name for class {number}; give one name or a list of names")
