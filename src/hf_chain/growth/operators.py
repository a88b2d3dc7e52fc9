"""`grow`: from a predecessor and a successor's configuration to the successor, by one of the operators."""

from __future__ import annotations

import copy as copying
from typing import TYPE_CHECKING

from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.growth.axes import CLIP, CLIP_VISION
from hf_chain.growth.copy import copy
from hf_chain.growth.copy_fused import copy_fused
from hf_chain.growth.exact import exact
from hf_chain.growth.growth import Growth, Operator, float64_weights, fresh_model
from hf_chain.growth.interpolate import interpolate
from hf_chain.growth.measure import embedding_error
from hf_chain.growth.random import random
from hf_chain.growth.shapes import check_shapes, inexact_towers, nearest_exact_config
from hf_chain.growth.stack import stack

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel

logger = logging.get_logger(__name__)

OPERATORS: dict[str, Operator] = {
    "exact": exact,
    "copy": copy,
    "copy_fused": copy_fused,
    "stack": stack,
    "interpolate": interpolate,
    "random": random,
}

# Operators that keep the function of the width, and so of every head.
_EXACT_IN_WIDTH = ("exact", "stack", "interpolate")


def grow(predecessor: CLIPModel, config: CLIPConfig, operator: str = "exact", seed: int = 0) -> CLIPModel:
    """Make a successor from a trained predecessor.

    Neither the predecessor, nor `config`, nor the global random state changes. The exact operators compute in float64
    and set the successor's `layer_norm_eps` where a tower is padded (ε′ = ε·D/D′). Where `exact` cannot be exact, a
    warning says how large the error is and which shape has none.

    Args:
        predecessor (`CLIPModel`): the smaller model.
        config (`CLIPConfig`): the successor's configuration; no size smaller, the same input and activation.
        operator (`str`, *optional*, defaults to `"exact"`): one of `OPERATORS`.
        seed (`int`, *optional*, defaults to 0): the seed of everything random in the successor.

    Returns:
        `CLIPModel`: a stock model with the dtype, device and mode of the predecessor.

    Raises:
        HfChainError: for an unknown operator and for a shape that growth cannot reach.
    """
    if operator not in OPERATORS:
        raise HfChainError(f"operator={operator!r} is unknown: use one of {', '.join(OPERATORS)}")
    check_shapes(predecessor.config, config, keep_heads=operator in _EXACT_IN_WIDTH)

    config = copying.deepcopy(config)
    growth = Growth(
        towers=CLIP,
        old=predecessor.config,
        new=config,
        weights=float64_weights(predecessor),
        seed=seed,
    )
    weights = OPERATORS[operator](growth)
    successor = fresh_model(config, seed, predecessor.dtype)
    successor.load_state_dict(weights, strict=True)
    successor.to(predecessor.device).train(predecessor.training)
    if operator == "exact" and any(inexact_towers(predecessor.config, config)):
        _warn_of_error(predecessor, successor)
    return successor


def _warn_of_error(predecessor: CLIPModel, successor: CLIPModel) -> None:
    nearest = CLIP_VISION.config_of(nearest_exact_config(predecessor.config, successor.config))
    old, new = (CLIP_VISION.config_of(model.config).hidden_size for model in (predecessor, successor))
    error = embedding_error(predecessor, successor)["image"]
    logger.warning(
        f"vision_config.hidden_size={new} is not a multiple of the predecessor's {old}: image embeddings start with a"
        f" relative error of {error:.1e}; every multiple is exact, the nearest is hidden_size={nearest.hidden_size}"
        f" with num_attention_heads={nearest.num_attention_heads} and intermediate_size={nearest.intermediate_size}"
    )
