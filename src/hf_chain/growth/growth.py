"""What every operator gets: the predecessor's weights in float64, both configurations and a source of randomness."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch

from hf_chain.growth.axes import Tower

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Growth:
    """One growth.

    Args:
        towers (`Sequence[Tower]`): the axis tables of the architecture.
        old (`CLIPConfig`): the predecessor's configuration.
        new (`CLIPConfig`): the successor's; an operator may set the epsilon of its norms.
        weights (`dict[str, torch.Tensor]`): the predecessor's weights, float64 on the CPU.
        seed (`int`): the seed of everything random.
    """

    towers: Sequence[Tower]
    old: CLIPConfig
    new: CLIPConfig
    weights: Weights
    seed: int

    @cached_property
    def generator(self) -> torch.Generator:
        """The source of random numbers, one sequence for the whole growth."""
        return torch.Generator().manual_seed(self.seed)

    @cached_property
    def fresh(self) -> Weights:
        """A random successor's weights, float64 on the CPU."""
        return float64_weights(fresh_model(self.new, self.seed, torch.float32))


Operator = Callable[[Growth], Weights]


def fresh_model(config: CLIPConfig, seed: int, dtype: torch.dtype) -> CLIPModel:
    """A randomly initialised model that leaves the global random state as it was.

    Args:
        config (`CLIPConfig`): what to build; copied, not kept.
        seed (`int`): the seed of the initialisation.
        dtype (`torch.dtype`): the type of the weights.

    Returns:
        `CLIPModel`: the model, on the CPU.
    """
    from transformers import CLIPModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(copy.deepcopy(config)).to(dtype)


def embedding_size(config: CLIPConfig) -> int:
    """The number of coordinates both towers project to."""
    return cast(int, config.projection_dim)


def float64_weights(model: CLIPModel) -> Weights:
    """The parameters of a model, float64 on the CPU, detached copies."""
    return {name: weight.detach().to("cpu", torch.float64, copy=True) for name, weight in model.named_parameters()}
