"""The schedule that a law proposes: how long each member is trained, and where its successor grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.forecast.law import Law

LOSSES = 150
"""Of each member, at which it may be delivered."""
LONGEST = 100
"""How often more samples than any pilot saw the forecast may go."""


@dataclass(frozen=True)
class Candidate:
    """A member as the forecast sees it.

    Args:
        name (`str`): its name.
        size (`float`): forward MACs of a sample.
        macs (`float`): training MACs of a sample, teacher excluded.
        decay (`float`): share of its samples that is the branch it is delivered by; 0 without a trunk.
    """

    name: str
    size: float
    macs: float
    decay: float = 0.0


@dataclass(frozen=True)
class Leg:
    """What the proposal says of a member.

    Args:
        name (`str`): the member.
        samples (`float`): of its own training, branch included.
        begins (`float`): loss that the trunk of the one before it stands for; infinite from scratch.
        reaches (`float`): loss that it is delivered with.
        macs (`float`): of its own training.
        twin_macs (`float`): what its size costs from scratch to the same loss.
        continued (`float`): best loss of its predecessor, trained on for as many MACs or not; infinite for the first.
    """

    name: str
    samples: float
    begins: float
    reaches: float
    macs: float
    twin_macs: float
    continued: float


@dataclass(frozen=True)
class Proposal:
    """A schedule of all members.

    Args:
        legs (`Sequence[Leg]`): the members, smallest first.
    """

    legs: Sequence[Leg]

    @property
    def macs(self) -> float:
        """Of the family."""
        return sum(leg.macs for leg in self.legs)

    @property
    def loss(self) -> float:
        """Of the largest member."""
        return self.legs[-1].reaches

    @property
    def family_ratio(self) -> float:
        """What twins cost to the same losses, over the family."""
        return sum(leg.twin_macs for leg in self.legs) / self.macs

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "macs": self.macs,
            "family_ratio": self.family_ratio,
            "members": [{name: finite(value) for name, value in vars(leg).items()} for leg in self.legs],
        }


def finite(value: Any) -> Any:
    """What JSON can hold: `None` for infinity."""
    return None if value in (np.inf, -np.inf) else value


class Forecast:
    """All schedules of a family that are the cheapest to what its largest member reaches.

    The losses at which members are delivered are chosen on a grid, by dynamic programming over the members. Every
    member has to use its size: to be ahead of its predecessor trained on for the same MACs.

    Args:
        law (`Law`): the law.
        family (`Sequence[Candidate]`): the members, smallest first.
        most_samples (`float`): the longest training that the law was fitted to.
        margin (`float`): by how much it has to be ahead.
    """

    def __init__(self, law: Law, family: Sequence[Candidate], most_samples: float, margin: float = 0.0) -> None:
        self.law, self.family, self.most_samples, self.margin = law, family, most_samples, margin
        samples = np.geomspace(most_samples / LONGEST, most_samples * LONGEST, LOSSES)
        reached = np.concatenate([law.loss(member.size, samples) for member in family])
        self.losses = np.unique(reached)[::-1]

    @cached_property
    def _plan(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """For each member and loss that it is delivered with: MACs of the family so far, and the loss before it."""
        costs = [self.family[0].macs * self.law.samples(self.family[0].size, self.losses)]
        before = [np.zeros(len(self.losses), dtype=int)]
        for small, large in zip(self.family, self.family[1:], strict=False):
            samples = self._samples(small, large)
            cost = costs[-1][:, None] + large.macs * samples
            cost[self.losses[None, :] + self.margin >= self._continued(small, large, samples)] = np.inf
            before.append(cost.argmin(axis=0))
            costs.append(cost.min(axis=0))
        return costs, before

    def _trunk(self, member: Candidate) -> np.ndarray:
        """Samples that the trunk of a member is worth, for each loss that it is delivered with."""
        return self.law.samples(member.size, self.losses) * (1 - member.decay)

    def _samples(self, small: Candidate, large: Candidate) -> np.ndarray:
        """Samples of a grown member, by the loss that the one before it was delivered with and by its own."""
        return self.law.grown_samples(large.size, self._begun(small)[:, None], self.losses[None, :])

    def _begun(self, small: Candidate) -> np.ndarray:
        """What the trunk of a member stands for, for each loss that it is delivered with."""
        return self.law.trunk_loss(small.size, self.losses, small.decay)

    def _continued(self, small: Candidate, large: Candidate, samples: np.ndarray) -> np.ndarray:
        """Best loss of the one before it, trained on for as many MACs; minus infinity where nothing has grown."""
        longer = self._trunk(small)[:, None] + samples * large.macs / small.macs
        with np.errstate(invalid="ignore"):
            best = np.minimum(self.law.loss(small.size, longer), self.losses[:, None])
            return np.where(samples > 0, best, -np.inf)

    def cheapest_to(self, loss: float) -> Proposal:
        """The cheapest schedule whose largest member reaches a loss.

        Raises:
            HfChainError: when no schedule does.
        """
        reached = np.flatnonzero((self.losses <= loss) & np.isfinite(self._plan[0][-1]))
        if not len(reached):
            best = self.losses[np.isfinite(self._plan[0][-1])].min(initial=np.inf)
            raise HfChainError(
                f"no schedule in which every member uses its size reaches {loss:.4g}, the best comes to {best:.4g}: "
                "give a larger last member, or ask for less"
            )
        return self._walk(int(reached[self._plan[0][-1][reached].argmin()]))

    def best_for(self, macs: float) -> Proposal:
        """The schedule whose largest member is best within a budget.

        Raises:
            HfChainError: when none is within it.
        """
        affordable = np.flatnonzero(self._plan[0][-1] <= macs)
        if not len(affordable):
            raise HfChainError(
                f"in no schedule of {macs:.3g} MACs does every member use its size, the cheapest takes "
                f"{self._plan[0][-1].min():.3g}: raise the budget, or leave a member out"
            )
        return self._walk(int(affordable[self.losses[affordable].argmin()]))

    def _walk(self, place: int) -> Proposal:
        _, before = self._plan
        places = [place]
        for choice in reversed(before[1:]):
            places.insert(0, int(choice[places[0]]))
        legs: list[Leg] = []
        for number, (member, at) in enumerate(zip(self.family, places, strict=True)):
            reaches = float(self.losses[at])
            twin = float(self.law.samples(member.size, reaches))
            samples, begins, continued = twin, np.inf, np.inf
            if number:
                small, start = self.family[number - 1], places[number - 1]
                matrix = self._samples(small, member)
                begins = float(self._begun(small)[start])
                samples, continued = float(matrix[start, at]), float(self._continued(small, member, matrix)[start, at])
            macs = member.macs * samples
            legs.append(Leg(member.name, samples, begins, reaches, macs, member.macs * twin, continued))
        return Proposal(legs)
