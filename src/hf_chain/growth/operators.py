"""`grow`: from a predecessor and a successor's configuration to the successor, by one of the operators."""

from __future__ import annotations

import copy as copying
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

import torch
from accelerate import init_empty_weights
from transformers.utils import logging

from hf_chain.adapters import check_no_adapter
from hf_chain.errors import HfChainError
from hf_chain.families import Family, family_of, value_of
from hf_chain.growth.copy import copy, copy_fused
from hf_chain.growth.depth import DepthRule, inserted, interpolated, origins, stacked
from hf_chain.growth.exact import exact, interpolate, set_epsilons, stack
from hf_chain.growth.growth import Growth, Operator, fresh_model
from hf_chain.growth.measure import growth_error
from hf_chain.growth.optimizer_state import grow_optimizer_state
from hf_chain.growth.shapes import EXACT_IN_WIDTH, check_shapes, inexact_streams, nearest_exact_config
from hf_chain.loaded_weights import require_finite

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

logger = logging.get_logger(__name__)


def random(growth: Growth) -> Iterator[tuple[str, torch.Tensor]]:
    """A fresh initialisation that inherits nothing, the control of every comparison."""
    return ((name, growth.fresh(name)) for name in growth.names)


OPERATORS: dict[str, Operator] = {
    "exact": exact,
    "copy": copy,
    "copy_fused": copy_fused,
    "stack": stack,
    "interpolate": interpolate,
    "random": random,
}

_DEPTH: dict[str, DepthRule] = {"exact": inserted, "stack": stacked}


@overload
def grow(
    predecessor: PreTrainedModel, config: PreTrainedConfig, operator: str = "exact", seed: int = 0
) -> PreTrainedModel: ...


@overload
def grow(
    predecessor: PreTrainedModel,
    config: PreTrainedConfig,
    operator: str = "exact",
    seed: int = 0,
    *,
    optimizer_state: Mapping[str, Any],
) -> tuple[PreTrainedModel, dict[str, Any]]: ...


def grow(
    predecessor: PreTrainedModel,
    config: PreTrainedConfig,
    operator: str = "exact",
    seed: int = 0,
    *,
    optimizer_state: Mapping[str, Any] | None = None,
) -> PreTrainedModel | tuple[PreTrainedModel, dict[str, Any]]:
    """Make a successor from a trained predecessor, of any family that `hf_chain.families` describes.

    Neither the predecessor, nor `config`, nor the global random state changes. The exact operators compute in float64,
    one weight at a time, set the epsilon of the successor's norms where a stream is padded (ε′ = ε·D/D′), and let
    lists such as `layer_types` follow the blocks. Where `exact` cannot be exact, a warning says how large the error is
    and which shape has none.

    Args:
        predecessor (`PreTrainedModel`): The smaller model, of a stock class.
        config (`PreTrainedConfig`): The successor's configuration; no size smaller, the same kind of input and
            activation.
        operator (`str`, *optional*, defaults to `"exact"`): One of `OPERATORS`.
        seed (`int`, *optional*, defaults to 0): The seed of everything random in the successor.
        optimizer_state (`Mapping`, *optional*): AdamW's, by the names of weights, as
            `torch.distributed.checkpoint.state_dict.get_optimizer_state_dict` gives it.

    Returns:
        `PreTrainedModel`: A model of the predecessor's class, with its dtype, device and mode. Where `optimizer_state`
        is given, the successor's state stands beside it, for `set_optimizer_state_dict`.

    Raises:
        HfChainError: For an unknown operator, for a family that is not described, for a shape that growth cannot
            reach, and for a predecessor with an adapter or with weights that are not finite.
    """
    if operator not in OPERATORS:
        raise HfChainError(f"operator={operator!r} is unknown: use one of {', '.join(OPERATORS)}")
    _check_kinds(predecessor, config)
    family = family_of(predecessor.config)
    floating = all(weight.is_floating_point() for weight in predecessor.parameters())
    if not floating or getattr(predecessor.config, "quantization_config", None):
        raise HfChainError("the predecessor is quantised: grow the model that it was made of, or its dequantize()")
    require_finite(predecessor, "the predecessor")
    check_no_adapter(predecessor, "the predecessor")
    check_shapes(predecessor.config, config, keep_heads=operator in EXACT_IN_WIDTH)
    if optimizer_state is not None and operator not in EXACT_IN_WIDTH:
        raise HfChainError(f"operator={operator!r} keeps no function, so no optimizer state: use 'exact' or give none")

    config = copying.deepcopy(config)
    if operator != "random":
        _follow_blocks(family, predecessor.config, config, _DEPTH.get(operator, interpolated))
    kind = type(predecessor)
    if operator in EXACT_IN_WIDTH:
        set_epsilons(family, predecessor.config, config)
        with init_empty_weights(include_buffers=False), torch.random.fork_rng(devices=[]):
            successor = kind(config)
        successor.tie_weights()
    else:
        successor = fresh_model(config, kind, seed, torch.float32)
    growth = Growth(family, predecessor, successor, config, seed)
    weights = {name: weight.to(predecessor.dtype).contiguous() for name, weight in OPERATORS[operator](growth)}
    successor.load_state_dict(weights, strict=False, assign=True)
    successor.tie_weights()
    _take_buffer_types(successor, predecessor)
    if getattr(predecessor, "generation_config", None) is not None:
        successor.generation_config = copying.deepcopy(predecessor.generation_config)
    require_finite(successor, f"the successor in {predecessor.dtype}")
    successor.to(predecessor.device).train(predecessor.training)
    if operator == "exact" and any(inexact_streams(predecessor.config, config)):
        _warn_of_error(predecessor, successor)
    if optimizer_state is not None:
        return successor, grow_optimizer_state(growth, optimizer_state, _DEPTH.get(operator, interpolated))
    return successor


def _check_kinds(predecessor: PreTrainedModel, config: PreTrainedConfig) -> None:
    from transformers import PreTrainedConfig, PreTrainedModel

    for what, value, kind in (
        ("predecessor", predecessor, PreTrainedModel),
        ("configuration", config, PreTrainedConfig),
    ):
        if not isinstance(value, kind):
            raise HfChainError(f"the {what} is a {type(value).__name__}: give a {kind.__name__}")


def _follow_blocks(family: Family, old: PreTrainedConfig, new: PreTrainedConfig, depth: DepthRule) -> None:
    """Lists with an entry a block, such as which attention it has, follow the blocks."""
    for stream in family.streams:
        before, after = stream.config_of(old), stream.config_of(new)
        blocks = origins(depth, stream, old, new)
        for field in family.per_layer:
            entries = getattr(before, field, None)
            if isinstance(entries, list) and len(entries) == stream.depth_of(old):
                setattr(after, field, [entries[origin.block] for origin in blocks])


def _take_buffer_types(successor: PreTrainedModel, predecessor: PreTrainedModel) -> None:
    """Give buffers the types that the predecessor has them in: frequencies stay in float32 beside bfloat16 weights."""
    # New blocks take those of any other.
    types = {re.sub(r"\d+", "", name): buffer.dtype for name, buffer in predecessor.named_buffers()}
    for name, buffer in successor.named_buffers():
        buffer.data = buffer.data.to(types.get(re.sub(r"\d+", "", name), buffer.dtype))


def _warn_of_error(predecessor: PreTrainedModel, successor: PreTrainedModel) -> None:
    old, new = predecessor.config, successor.config
    advised = nearest_exact_config(old, new)
    error = max(growth_error(predecessor, successor).values())
    for stream in {stream.field(stream.width): stream for stream in inexact_streams(old, new)}.values():
        width, nearest = stream.field(stream.width), stream.config_of(advised)
        sizes = [f"{name}={getattr(nearest, name)}" for name in (stream.width, stream.heads, stream.mlp) if name]
        logger.warning(
            f"{width}={value_of(new, width)} is not a multiple of the predecessor's {value_of(old, width)}: the"
            f" successor starts with a relative error of {error:.1e}; every multiple is exact, the nearest is"
            f" {' and '.join([' with '.join(sizes[:2]), *sizes[2:]])}"
        )
