"""Zero-shot classification: an image belongs to the class whose prompts it is closest to (CLIP, section 3.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import normalize

from hf_chain.data.prompts import checked_templates
from hf_chain.errors import HfChainError
from hf_chain.evaluation.retrieval import hits_at
from hf_chain.families import VISION_TEXT

ClassName = str | Sequence[str]
"""One name of a class, or all the names it goes by."""


def class_prompts(class_names: Sequence[ClassName], templates: Sequence[str]) -> list[list[str]]:
    """Writes each name of each class into each template.

    Args:
        class_names (`Sequence[str | Sequence[str]]`): For each class its name or its names.
        templates (`Sequence[str]`): Sentences with `{}` where the name goes.

    Returns:
        `list[list[str]]`: The prompts of each class, names × templates of them.
    """
    return [
        [template.replace("{}", name) for name in _names(names) for template in templates] for names in class_names
    ]


def class_labels(class_names: Sequence[ClassName]) -> list[str]:
    """One distinct label for each class: its names joined by commas, with the class number where two classes agree."""
    labels = [", ".join(_names(names)) for names in class_names]
    count = Counter(labels)
    return [label if count[label] == 1 else f"{label} [{index}]" for index, label in enumerate(labels)]


def class_embeddings(prompt_embeddings: Sequence[torch.Tensor]) -> torch.Tensor:
    """Ensembles the prompts of each class: the mean of their normalised embeddings, normalised again (section 3.1.4).

    Args:
        prompt_embeddings (`Sequence[torch.Tensor]`): For each class the embeddings of its prompts, shape `[P_c, D]`.

    Returns:
        `torch.Tensor`: Class embeddings of unit length, shape `[C, D]`.
    """
    return torch.stack([normalize(normalize(prompts, dim=-1).mean(0), dim=-1) for prompts in prompt_embeddings])


def zero_shot_metrics(
    images: torch.Tensor, classes: torch.Tensor, labels: torch.Tensor, names: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy of classifying `images` by the nearest of `classes`; of several that are equally near by any of them.

    Args:
        images (`torch.Tensor`): Normalised image embeddings, shape `[N, D]`.
        classes (`torch.Tensor`): Class embeddings, shape `[C, D]`; with fewer than five, all count for top-5.
        labels (`torch.Tensor`): Class of each image, int64, shape `[N]`.
        names (`Sequence[str]`): Distinct name of each class.

    Returns:
        `tuple[dict[str, float], dict[str, float]]`: `zero_shot_top1` and `zero_shot_top5`, and the top-1 accuracy by
        class of the classes that have images, all in [0, 1].
    """
    top1, top5, per_class = accuracies(images @ classes.T, labels, names)
    return {"zero_shot_top1": top1, "zero_shot_top5": top5}, per_class


def accuracies(
    scores: torch.Tensor, labels: torch.Tensor, names: Sequence[str]
) -> tuple[float, float, dict[str, float]]:
    """Accuracy of taking the classes with the highest scores; of several that are equally high any of them.

    Args:
        scores (`torch.Tensor`): Score of each class for each image, shape `[N, C]`; with fewer than five classes, all
            count for top-5.
        labels (`torch.Tensor`): Class of each image, int64, shape `[N]`.
        names (`Sequence[str]`): Distinct name of each class.

    Returns:
        `tuple[float, float, dict[str, float]]`: Top-1, top-5, and top-1 by class of the classes that have images.
    """
    correct = torch.arange(scores.shape[1], device=labels.device) == labels[:, None]
    hits = hits_at(scores, correct, 5)
    labels, first = labels.cpu(), hits[:, 0].cpu()
    images_in = torch.bincount(labels, minlength=len(names)).tolist()
    correct_in = torch.bincount(labels, weights=first, minlength=len(names)).tolist()
    per_class = {name: correct_in[c] / images_in[c] for c, name in enumerate(names) if images_in[c]}
    return hits[:, 0].mean().item(), hits[:, 4].mean().item(), per_class


def _names(names: ClassName) -> Sequence[str]:
    return [names] if isinstance(names, str) else names


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
    if model.config.model_type not in ("clip", "chain_clip", "siglip", VISION_TEXT):
        raise HfChainError(
            f"the model is a {type(model).__name__}: give a CLIPModel, SiglipModel or VisionTextDualEncoderModel"
        )
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
    check_rows(dataset, batch_size, max_samples)
    if class_names is not None:
        _check_names(class_names)
        try:
            checked_templates([templates] if isinstance(templates, str) else templates)
        except ValueError as error:
            raise HfChainError(str(error)) from error


def check_rows(dataset: Any, batch_size: Any, max_samples: Any) -> None:
    """Refuses evaluation data that are no split, and numbers of rows that are none.

    Raises:
        HfChainError: naming the argument and its value.
    """
    if not isinstance(dataset, Dataset):
        raise HfChainError(f"the evaluation data are a {type(dataset).__name__}: give one split as a datasets.Dataset")
    for name, number in (("batch_size", batch_size), ("max_samples", max_samples)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise HfChainError(f"{name} is {number!r}: give a whole number from 1")


def _check_names(class_names: Any) -> None:
    if isinstance(class_names, str) or not isinstance(class_names, Sequence) or not class_names:
        raise HfChainError(f"class_names is {class_names!r}: give a list with the name, or the names, of each class")
    for number, names in enumerate(class_names):
        texts = [names] if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise HfChainError(f"class_names has no name for class {number}; give one name or a list of names")
