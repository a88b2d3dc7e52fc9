"""Refitting one write of a layer: what its features are, and how the solution folds into its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from hf_chain.errors import HfChainError
from hf_chain.grafting.translator.normal_equations import NormalEquations

if TYPE_CHECKING:
    from hf_chain.grafting.translator.layer_writes import Write


class Refit(Protocol):
    """One write of a layer that is fitted again."""

    kind: str

    def weights(self) -> list[nn.Parameter]:
        """The parameters that `fold` changes."""

    def equations(self) -> NormalEquations:
        """Empty sums of the right sizes, where the features are."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While it is open, forward passes of the layer leave their features behind."""

    def problem(self, tokens: torch.Tensor, missing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features `[N, F]` and residuals `[N, D]` of the last forward pass.

        Args:
            tokens (`torch.Tensor` of shape `[B, L]`): which N of its tokens.
            missing (`torch.Tensor` of shape `[N, d]`): what the layer should have written in addition.
        """

    def fold(self, solution: torch.Tensor) -> None:
        """Adds a solution `[F, D]`, with the intercept as the last row where there is one, to the weights."""


def refit_of(layer: nn.Module, write: Write) -> Refit:
    """How a write of this layer is fitted.

    Args:
        layer (`nn.Module`): a translator layer.
        write (`Write`): its attention or its MLP.

    Raises:
        HfChainError: when its weights are quantised.
    """
    # Families with experts may have layers without.
    if write.mixture and hasattr(layer.get_submodule(write.mixture), "experts"):
        return MixtureRefit(layer, write)
    return ProjectionRefit(layer, write)


class ProjectionRefit:
    """Refits a projection W from its own inputs a: X maps a to what is missing, and W ← W + X.

    A bias is a free intercept. Behind a norm with gain g the layer adds g ⊙ aW / ρ with ρ = rms(aW). There ρ is held
    fixed: X maps a / ρ to what is missing, divided by g. As ρ moves with W, the error must be measured afterwards.
    """

    def __init__(self, layer: nn.Module, write: Write) -> None:
        self.kind = write.projection
        projection = layer.get_submodule(write.projection)
        # Quantised layers are subclasses.
        if type(projection) not in (nn.Linear, Conv1D):
            raise HfChainError(
                f"closed_form cannot write into {write.projection}, a {type(projection).__name__}: load the surrogate"
                " with plain weights, not quantised ones"
            )
        self.projection = cast(nn.Linear, projection)
        self.norm = layer.get_submodule(write.norm) if write.norm else None
        self.norm_offset = write.norm_offset
        self._inputs = self._outputs = torch.empty(0)

    def weights(self) -> list[nn.Parameter]:
        return list(self.projection.parameters())

    def equations(self) -> NormalEquations:
        features, outputs = _in_out(self.projection).shape
        intercept = self.projection.bias is not None and self.norm is None
        return NormalEquations(features, outputs, intercept, _where_float64(self.projection.weight))

    @contextmanager
    def watching(self) -> Iterator[None]:
        def keep(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            self._inputs, self._outputs = args[0].flatten(0, -2), output.flatten(0, -2)

        hook = self.projection.register_forward_hook(keep)
        try:
            yield
        finally:
            hook.remove()

    def problem(self, tokens: torch.Tensor, missing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = tokens.flatten().to(self._inputs.device)
        features = self._inputs[tokens]
        if self.norm is None:
            return features, missing
        size = self._outputs[tokens].double().square().mean(1, keepdim=True).sqrt().clamp_min(1e-12)
        gain = cast(torch.Tensor, self.norm.weight).detach().double() + self.norm_offset
        # A channel that the norm switches off cannot be fitted.
        share = torch.where(gain.abs() > 1e-6, gain.reciprocal(), 0.0)
        return features / size, missing * share.to(missing.device)

    @torch.no_grad()
    def fold(self, solution: torch.Tensor) -> None:
        weight = _in_out(self.projection)
        _add(weight, solution[: len(weight)])
        if len(solution) > len(weight):
            _add(self.projection.bias, solution[-1])


class MixtureRefit:
    """Maps the output m of a mixture of experts: X maps m to what is missing, and W_e ← W_e (1 + X) in every expert e.

    As the output is a weighted sum of the experts', this is the map on their sum, exactly, whatever the router chose.
    Source: ReplaceMe (arXiv 2505.02819), section 3, which folds a map on the MLP's output into its last projection.
    """

    def __init__(self, layer: nn.Module, write: Write) -> None:
        assert write.experts is not None and write.mixture is not None
        self.kind = write.experts
        self.mixture = layer.get_submodule(write.mixture)
        experts, name = write.experts.rsplit(".", 1)
        self.experts = cast(nn.Parameter, getattr(layer.get_submodule(experts), name))
        if not self.experts.is_floating_point():
            raise HfChainError(
                f"closed_form cannot write into {write.experts} of type {self.experts.dtype}: load the surrogate with"
                " plain weights, not quantised ones"
            )
        self._outputs = torch.empty(0)

    def weights(self) -> list[nn.Parameter]:
        return [self.experts]

    def equations(self) -> NormalEquations:
        outputs = self.experts.shape[1]
        return NormalEquations(outputs, outputs, device=_where_float64(self.experts))

    @contextmanager
    def watching(self) -> Iterator[None]:
        def keep(module: nn.Module, args: Any, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            self._outputs = (output[0] if isinstance(output, tuple) else output).flatten(0, -2)

        hook = self.mixture.register_forward_hook(keep)
        try:
            yield
        finally:
            hook.remove()

    def problem(self, tokens: torch.Tensor, missing: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._outputs[tokens.flatten().to(self._outputs.device)], missing

    @torch.no_grad()
    def fold(self, solution: torch.Tensor) -> None:
        for expert in self.experts:
            # An expert's weight is [d, f]: outputs first.
            _add(expert, solution.T @ expert.to(solution.device, solution.dtype))


def _in_out(projection: nn.Module) -> torch.Tensor:
    """The weight as `[inputs, outputs]`, a view."""
    weight = cast(torch.Tensor, projection.weight)
    return weight if isinstance(projection, Conv1D) else weight.T


def _add(weight: torch.Tensor, change: torch.Tensor) -> None:
    """Adds in float64 and rounds once."""
    weight.copy_(weight.to(change.device, change.dtype) + change)


def _where_float64(weight: torch.Tensor) -> torch.device:
    """The weight's device, or the CPU where the device has no float64."""
    return torch.device("cpu") if weight.device.type == "mps" else weight.device
