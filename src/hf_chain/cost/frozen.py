"""Training cost of a model of which only parts are trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """A piece of a model, such as a layer, in the order of the forward pass.

    Attributes:
        name (`str`): Name of the piece.
        forward_macs (`int`): Multiply-accumulate operations of its forward pass.
        trained_share (`float`): Share of its weights that are trained, 0 to 1.
    """

    name: str
    forward_macs: int
    trained_share: float = 0.0


def training_macs(segments: Iterable[Segment]) -> int:
    """Counts the MACs of a training step on a model with frozen parts.

    Every segment is run forward. From the first trained segment on, gradients travel through every segment, frozen or
    not, which costs one more forward each; gradients of weights cost another one, for the weights that are trained.
    A model that is trained as a whole costs three forwards, as in `MemberCost`.

    Args:
        segments (`Iterable[Segment]`): The model in the order of its forward pass.

    Returns:
        `int`: Multiply-accumulate operations.
    """
    total, reached = 0.0, False
    for segment in segments:
        reached = reached or segment.trained_share > 0
        total += segment.forward_macs * (1 + reached + segment.trained_share)
    return round(total)
