"""How small the surrogate must be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from hf_chain.cost import human
from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from hf_chain.grafting.trajectory import Trajectory


@dataclass(frozen=True)
class Budget:
    """The most that a surrogate may be, by one of three measures.

    Args:
        parameters (`int`, *optional*): parameters, embeddings and head included.
        macs_share (`float`, *optional*): share, in (0, 1), of the target's forward MACs on a sample of mean length.
        layers (`int`, *optional*): layers, translators included.

    Raises:
        HfChainError: when not exactly one of them is given, or its value is impossible.
    """

    parameters: int | None = None
    macs_share: float | None = None
    layers: int | None = None

    def __post_init__(self) -> None:
        given = [part.name for part in fields(self) if getattr(self, part.name) is not None]
        if len(given) != 1:
            names = " and ".join(given) or "nothing"
            raise HfChainError(
                f"a budget has one measure, but {names} is given: choose parameters, macs_share or layers"
            )
        value, share = getattr(self, given[0]), given[0] == "macs_share"
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # A value that is not a number is above nothing.
        if not number or not value > 0 or (share and value >= 1):
            allowed = "a share between 0 and 1" if share else "a number above 0"
            raise HfChainError(f"budget {given[0]}={value!r} is impossible: give {allowed}")

    def __str__(self) -> str:
        if self.parameters is not None:
            return f"{human(self.parameters)} parameters"
        return f"{self.layers} layers" if self.macs_share is None else f"{self.macs_share:.0%} of the MACs"

    def allows(self, trajectory: Trajectory, kept: Collection[int]) -> bool:
        """Whether a surrogate is within the budget.

        Args:
            trajectory (`Trajectory`): of the target.
            kept (`Collection[int]`): the target's layers that the surrogate has.

        Returns:
            `bool`: whether it is.
        """
        if self.parameters is not None:
            return trajectory.parameters(kept) <= self.parameters
        if self.macs_share is not None:
            return trajectory.sample_macs(kept) <= self.macs_share * trajectory.sample_macs()
        return self.layers is None or len(kept) <= self.layers
