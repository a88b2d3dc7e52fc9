"""Refitting what a layer writes: its weights, what the features are, and how a solution folds into them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_family, text_config
from hf_chain.grafting.translator.normal_equations import ChannelEquations, GainedEquations, NormalEquations

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Write:
    """How one half of a layer, attention or MLP, writes.

    Args:
        projection (`str`): its last linear map.
        norm (`str`, *optional*): a norm between that map and the residual stream.
        norm_offset (`float`): what this norm adds to its weight before it multiplies by it.
        experts (`str`, *optional*): of a mixture, the parameter `[experts, d, f]` with every expert's last linear map.
        mixture (`str`, *optional*): the module that adds up the experts.
        factor (`float`): what is written is multiplied with (Granite).
    """

    projection: str
    norm: str | None = None
    norm_offset: float = 0.0
    experts: str | None = None
    mixture: str | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class LayerWrites:
    """Both halves of a layer."""

    attention: Write
    mlp: Write


def layer_writes(config: PreTrainedConfig) -> LayerWrites:
    """How the layers of a model write, as its family describes their weights.

    Args:
        config (`PreTrainedConfig`): the model's configuration; of a composite one, its decoder counts.

    Returns:
        `LayerWrites`: both halves.

    Raises:
        HfChainError: when a layer normalises the residual stream itself, or holds experts in another layout.
    """
    config = text_config(config)
    if getattr(config, "do_layer_norm_before", True) is False:
        raise HfChainError(
            "closed_form cannot fold into layers with do_layer_norm_before=False, which normalise the residual stream"
            " itself: use method 'train'"
        )
    stream = decoder_family(config).streams[0]
    attention = mlp = experts = None
    for name, weight in stream.block.items():
        if weight.role != "write" or len(weight.axes) < 2:
            continue
        module = name.removesuffix(".weight")
        if "context" in weight.axes:
            attention = module
        elif weight.axes[0] != "expert":
            mlp = module
        elif weight.axes == ("expert", "residual", "mlp"):
            experts = name
        else:
            raise HfChainError(
                f"closed_form does not know how the experts of {config.model_type!r} write: use method 'train'"
            )
    if getattr(config, "n_shared_experts", 0):
        raise HfChainError(
            f"closed_form does not know how the shared experts of {config.model_type!r} write: use method 'train'"
        )
    factor = getattr(config, "residual_multiplier", 1.0)
    norms = [name.removesuffix(".weight") for name, weight in stream.block.items() if weight.role == "post_gain"]
    first, second = norms or (None, None)
    mixture = experts.split(".")[0] if experts else None
    return LayerWrites(
        Write(str(attention), first, stream.gain_offset if first else 0.0, factor=factor),
        Write(str(mlp), second, stream.gain_offset if second else 0.0, experts, mixture, factor),
    )


Equations = NormalEquations | ChannelEquations


class Refit(ABC):
    """One weight of a layer that is fitted again.

    Args:
        kind (`str`): the name of the weight or its module, for reports.
        watched (`nn.Module`): the module whose inputs or outputs are the features.
        weights (`list[nn.Parameter]`): the parameters that `fold` changes.
    """

    def __init__(self, kind: str, watched: nn.Module, weights: list[nn.Parameter]) -> None:
        self.kind, self.watched, self.weights = kind, watched, weights
        self._inputs = self._outputs = torch.empty(0)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While it is open, a forward pass of the layer leaves its features behind."""

        def keep(module: nn.Module, args: tuple[torch.Tensor, ...], output: Any) -> None:
            self._inputs = args[0].flatten(0, -2)
            self._outputs = (output[0] if isinstance(output, tuple) else output).flatten(0, -2)

        hook = self.watched.register_forward_hook(keep)
        try:
            yield
        finally:
            hook.remove()

    @abstractmethod
    def equations(self) -> Equations:
        """Empty sums of the right sizes."""

    @abstractmethod
    def problem(self, tokens: torch.Tensor, missing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and residuals of the last forward pass, `[N, F]` and `[N, d]`.

        Args:
            tokens (`torch.Tensor` of shape `[B, L]`): which N of its tokens.
            missing (`torch.Tensor` of shape `[N, d]`): what the layer should have written in addition, in float64.
        """

    @abstractmethod
    def fold(self, solution: torch.Tensor) -> None:
        """Adds a solution of the equations to the weights."""


def refits_of(layer: nn.Module, write: Write) -> list[Refit]:
    """What of a write is fitted, in order.

    Args:
        layer (`nn.Module`): a translator layer.
        write (`Write`): its attention or its MLP.

    Returns:
        `list[Refit]`: one, or with a norm behind it two.

    Raises:
        HfChainError: when its weights are quantised.
    """
    # Families with experts may have layers without.
    if write.mixture and hasattr(layer.get_submodule(write.mixture), "experts"):
        return [MixtureRefit(layer, write)]
    if write.norm:
        return [NormedProjectionRefit(layer, write), GainRefit(layer, write)]
    return [ProjectionRefit(layer, write)]


class ProjectionRefit(Refit):
    """Refits a projection W from its own inputs a: X maps a to what is missing, and W ← W + X.

    A bias is a free intercept.
    """

    def __init__(self, layer: nn.Module, write: Write) -> None:
        projection = layer.get_submodule(write.projection)
        # Quantised layers are subclasses.
        if type(projection) not in (nn.Linear, Conv1D):
            raise _quantised(write.projection, type(projection).__name__)
        super().__init__(write.projection, projection, list(projection.parameters()))
        weight = self.weights[0]
        # As [inputs, outputs], a view.
        self.matrix = weight if isinstance(projection, Conv1D) else weight.T
        self.factor = write.factor

    def equations(self) -> Equations:
        inputs, outputs = self.matrix.shape
        return NormalEquations(inputs, outputs, len(self.weights) == 2, self.matrix.device)

    def problem(self, tokens: torch.Tensor, missing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._inputs[tokens.flatten()], missing / self.factor

    @torch.no_grad()
    def fold(self, solution: torch.Tensor) -> None:
        _add(self.matrix, solution[: len(self.matrix)])
        if len(self.weights) == 2:
            _add(self.weights[1], solution[-1])


class NormedProjectionRefit(ProjectionRefit):
    """Refits a projection W with a norm behind it, where the layer adds g ⊙ aW / ρ with ρ = rms(aW) and the gain g.

    No linear map folds into that. Each token's ρ is held fixed: g ⊙ X maps a / ρ to what is missing. As ρ moves with
    W, the gain has to be fitted afterwards, and the error to be measured.
    """

    def __init__(self, layer: nn.Module, write: Write) -> None:
        super().__init__(layer, write)
        assert write.norm is not None
        self.norm, self.offset = layer.get_submodule(write.norm), write.norm_offset

    def equations(self) -> Equations:
        gain = cast(torch.Tensor, self.norm.weight).detach().double() + self.offset
        return GainedEquations(len(self.matrix), gain.to(self.matrix.device))

    def problem(self, tokens: torch.Tensor, missing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = tokens.flatten()
        return self._inputs[chosen].double() / _size(self._outputs[chosen]), missing


class GainRefit(Refit):
    """Refits the gain of the norm behind a projection W: x maps every channel of aW / ρ to what is missing there."""

    def __init__(self, layer: nn.Module, write: Write) -> None:
        assert write.norm is not None
        gain = cast(nn.Parameter, layer.get_submodule(write.norm).weight)
        super().__init__(write.norm, layer.get_submodule(write.projection), [gain])

    def equations(self) -> Equations:
        return ChannelEquations(len(self.weights[0]), self.weights[0].device)

    def problem(self, tokens: torch.Tensor, missing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self._outputs[tokens.flatten()]
        return outputs.double() / _size(outputs), missing

    @torch.no_grad()
    def fold(self, solution: torch.Tensor) -> None:
        _add(self.weights[0], solution)


class MixtureRefit(Refit):
    """Maps the output m of a mixture of experts: X maps m to what is missing, and W ← W (1 + X) in every expert.

    As the output is a weighted sum of the experts', that maps it exactly, whatever the router chooses.
    Source: ReplaceMe (arXiv 2505.02819), which folds a map of the MLP's output into its last projection.
    """

    def __init__(self, layer: nn.Module, write: Write) -> None:
        assert write.experts is not None and write.mixture is not None
        module, name = write.experts.rsplit(".", 1)
        experts = cast(nn.Parameter, getattr(layer.get_submodule(module), name))
        if not experts.is_floating_point():
            raise _quantised(write.experts, str(experts.dtype))
        super().__init__(write.experts, layer.get_submodule(write.mixture), [experts])

    def equations(self) -> Equations:
        # An expert's weight is [outputs, inputs].
        outputs = self.weights[0].shape[1]
        return NormalEquations(outputs, outputs, device=self.weights[0].device)

    def problem(self, tokens: torch.Tensor, missing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._outputs[tokens.flatten()], missing

    @torch.no_grad()
    def fold(self, solution: torch.Tensor) -> None:
        for expert in self.weights[0]:
            _add(expert, solution.T @ expert.to(solution))


def _size(outputs: torch.Tensor) -> torch.Tensor:
    """ρ, the root mean square of every token's projection, `[N, 1]` in float64."""
    return outputs.double().square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)


def _add(weight: torch.Tensor, change: torch.Tensor) -> None:
    """Adds in float64 and rounds once."""
    weight.copy_(weight.to(change) + change)


def _quantised(name: str, kind: str) -> HfChainError:
    return HfChainError(
        f"closed_form cannot write into {name}, which is {kind}: load the surrogate with plain weights, not quantised"
    )
