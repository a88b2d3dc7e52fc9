"""What every operator gets: the predecessor, both configurations, the successor to fill and a source of randomness."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from hf_chain.families import Family

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Growth:
    """One growth.

    Args:
        family (`Family`): What the weights are.
        predecessor (`PreTrainedModel`): The smaller model.
        successor (`PreTrainedModel`): The larger one, random or not filled yet; an operator may set the epsilon of its
            norms in `new`.
        new (`PreTrainedConfig`): The configuration of the successor.
        seed (`int`): The seed of everything random.
    """

    family: Family
    predecessor: PreTrainedModel
    successor: PreTrainedModel
    new: PreTrainedConfig
    seed: int

    @property
    def old(self) -> PreTrainedConfig:
        """The predecessor's configuration."""
        return self.predecessor.config

    @cached_property
    def generator(self) -> torch.Generator:
        """The source of random numbers, one sequence for the whole growth."""
        return torch.Generator().manual_seed(self.seed)

    @property
    def names(self) -> list[str]:
        """Names of the successor's parameters."""
        return list(self._fresh)

    def weight(self, name: str) -> torch.Tensor:
        """A weight of the predecessor, float64 on the CPU, a copy."""
        return _double(self._weights[name])

    def fresh(self, name: str) -> torch.Tensor:
        """A weight of the successor as its initialisation made it, float64 on the CPU, a copy."""
        return _double(self._fresh[name])

    def shape(self, name: str) -> torch.Size:
        """The shape of a weight of the successor."""
        return self._fresh[name].shape

    @cached_property
    def _weights(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.predecessor.named_parameters())

    @cached_property
    def _fresh(self) -> dict[str, torch.nn.Parameter]:
        return dict(self.successor.named_parameters())


Operator = Callable[[Growth], Iterator[tuple[str, torch.Tensor]]]
"""Yields the successor's weights one by one, by name, so that no second model is in memory."""


def fresh_model(
    config: PreTrainedConfig, kind: type[PreTrainedModel], seed: int, dtype: torch.dtype
) -> PreTrainedModel:
    """A randomly initialised model that leaves the global random state as it was.

    Args:
        config (`PreTrainedConfig`): What to build; copied, not kept.
        kind (`type`): The class of the model.
        seed (`int`): The seed of the initialisation.
        dtype (`torch.dtype`): The type of the weights.

    Returns:
        `PreTrainedModel`: The model, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(copy.deepcopy(config)).to(dtype)


def _double(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().to("cpu", torch.float64, copy=True)
