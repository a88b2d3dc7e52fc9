"""A model from tensors that are read when they are asked for: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from hf_chain.errors import HfChainError, reason
from hf_chain.loaded_weights import check_loaded, without_list_of_weights

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

Model = TypeVar("Model", bound="PreTrainedModel")


def load_whole(
    model_class: type[Model],
    config: PreTrainedConfig,
    tensors: Mapping[str, Any],
    dtype: str | torch.dtype,
    name: str,
    called: Callable[[str], str] = str,
) -> Model:
    """Loads a model, one tensor after the other, and refuses one whose weights `check_loaded` refuses.

    Args:
        model_class (`type`): its class.
        config (`PreTrainedConfig`): its configuration.
        tensors (`Mapping[str, Any]`): its weights by name, such as `LazyTensor`s.
        dtype (`str` or `torch.dtype`): type of the weights.
        name (`str`): what the user calls what is loaded.
        called (`Callable[[str], str]`): what it calls a weight of the model; the same by default.

    Returns:
        `PreTrainedModel`: on the CPU, in evaluation mode.

    Raises:
        HfChainError: when the model cannot be loaded, or a weight is missing, too many, not finite or
            of another shape.
    """
    try:
        with _one_tensor_at_a_time(), without_list_of_weights():
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=dtype,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, HfChainError):
            raise
        raise HfChainError(f"{name} cannot be loaded as {model_class.__name__}: {reason(error)}") from error
    check_loaded(model, report, name, called)
    return model


def named_dtype(*configs: PreTrainedConfig) -> torch.dtype | None:
    """The type that the first of these configurations with one names.

    Args:
        configs (`PreTrainedConfig`): those of a model and of its parts.

    Returns:
        `torch.dtype`, *optional*: `None` where none names one.
    """
    named = next((config.dtype for config in configs if config.dtype is not None), None)
    return getattr(torch, named) if isinstance(named, str) else named


def first_dtype(tensors: Iterable[Any]) -> torch.dtype:
    """The type of the first floating-point tensor; float32 where there is none.

    Args:
        tensors (`Iterable`): tensors or `LazyTensor`s.

    Returns:
        `torch.dtype`: its type.
    """
    types = (tensor.dtype for tensor in tensors)
    return next((dtype for dtype in types if dtype.is_floating_point), torch.float32)


@contextmanager
def _one_tensor_at_a_time() -> Iterator[None]:
    # By default transformers reads ahead in threads, which for fused experts means the whole model at once.
    switch = "HF_DEACTIVATE_ASYNC_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before
