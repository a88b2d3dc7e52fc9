"""Running only the first layers of a decoder: up to the splice, without the rest and without the head."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.grafting.ranges import LayerRange

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


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
    full_forward, last = model.forward, max(layers)

    def reached(module: nn.Module, inputs: Any, output: Any) -> None:
        raise _Reached

    with remembered(model, layers) as states:

        def forward(*args: Any, **kwargs: Any) -> list[torch.Tensor]:
            with suppress(_Reached):
                full_forward(*args, use_cache=False, **kwargs)
            return [states.pop(layer) for layer in layers]

        hook = decoder_layers(model)[last].register_forward_hook(reached)
        with replaced_forward(model, forward):
            try:
                yield
            finally:
                hook.remove()


@contextmanager
def remembered(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """While it is open, every call of the model leaves behind its hidden states after `layers`.

    Args:
        model (`PreTrainedModel`): a decoder-only language model.
        layers (`Sequence[int]`): indices of its layers.

    Yields:
        `dict[int, torch.Tensor]`: index of a layer to the states `[B, L, d]` of the last call.
    """
    states: dict[int, torch.Tensor] = {}

    def remember(index: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            states[index] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [decoder_layers(model)[layer].register_forward_hook(remember(layer)) for layer in set(layers)]
    try:
        yield states
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
def entered(model: PreTrainedModel, layer: int, states: torch.Tensor) -> Iterator[None]:
    """While it is open, a call of the model runs its layers from `layer` on alone, and hands them these states.

    Masks and positions are what the model makes of its inputs.

    Args:
        model (`PreTrainedModel`): a decoder-only language model.
        layer (`int`): index of the first layer that is run; not 0.
        states (`torch.Tensor` of shape `[B, L, d]`): what the layer before it once made of the same inputs.
    """

    def recall(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return states.to(hidden_states.device)

    with ExitStack() as stack:
        if layer > 1:
            stack.enter_context(without_layers(model, [LayerRange(0, layer - 2)]))
        stack.enter_context(replaced_forward(decoder_layers(model)[layer - 1], recall))
        yield


@contextmanager
def replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """Gives one module another `forward` for a while.

    Args:
        module (`nn.Module`): the module; as before afterwards.
        forward (`Callable`): what a call runs instead.
    """
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own
