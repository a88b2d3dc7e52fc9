"""Running only the first layers of a decoder: up to the splice, without the rest and without the head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch

from hf_chain.grafting.anatomy import decoder_layers

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from hf_chain.grafting.ranges import LayerRange

Batch = dict[str, torch.Tensor]
"""Text: `input_ids` and `attention_mask` `[B, L]`; `labels` `[B, L]` where only some tokens are to be predicted. With
images in between, `inputs_embeds` `[B, L, d]` in place of `input_ids`."""

INPUTS = ("input_ids", "inputs_embeds", "attention_mask", "position_ids")


class _Reached(Exception):
    """The last layer that is asked for has run."""


@contextmanager
def truncated(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[None]:
    """While it is open, a call of the model returns the hidden states after `layers` and runs nothing after the last.

    The call is cut inside the model's `forward`, so that whatever wraps the model (DDP, autocast) sees a normal one.

    Args:
        model (`PreTrainedModel`): a decoder-only language model.
        layers (`Sequence[int]`): indices of its layers; the call returns a list with one `[B, L, d]` for each.
    """
    states: dict[int, torch.Tensor] = {}
    full_forward, last = model.forward, max(layers)

    def remember(index: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            states[index] = output[0] if isinstance(output, tuple) else output
            if index == last:
                raise _Reached

        return hook

    def forward(*args: Any, **kwargs: Any) -> list[torch.Tensor]:
        with suppress(_Reached):
            full_forward(*args, use_cache=False, **kwargs)
        return [states.pop(layer) for layer in layers]

    hooks = [decoder_layers(model)[layer].register_forward_hook(remember(layer)) for layer in set(layers)]
    with replaced_forward(model, forward):
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@contextmanager
def without_layers(model: PreTrainedModel, ranges: Sequence[LayerRange]) -> Iterator[None]:
    """While it is open, these layers hand on what they get: layer dropping without a second model.

    Args:
        model (`PreTrainedModel`): a decoder-only language model.
        ranges (`Sequence[LayerRange]`): ranges of its layers; may be empty.
    """

    def identity(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden_states

    layers = decoder_layers(model)
    with ExitStack() as stack:
        for span in ranges:
            for layer in span.layers:
                stack.enter_context(replaced_forward(layers[layer], identity))
        yield


@contextmanager
def replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """Gives one module another `forward` for a while."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and the modes of before again at the end."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def forward_inputs(model: PreTrainedModel, batch: Batch) -> Batch:
    """What of a batch the model's `forward` takes, on its device."""
    return {name: batch[name].to(model.device) for name in INPUTS if name in batch}


def real_tokens(batch: Batch) -> torch.Tensor:
    """Which tokens of a batch are no padding, `[B, L]`."""
    mask = batch.get("attention_mask")
    return torch.ones(batch_shape(batch), dtype=torch.bool) if mask is None else mask.bool()


def batch_shape(batch: Batch) -> tuple[int, int]:
    """Rows and padded length of a batch."""
    rows, length = (batch["input_ids"] if "input_ids" in batch else batch["inputs_embeds"]).shape[:2]
    return rows, length
