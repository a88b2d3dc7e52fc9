"""Cost of a whole family: the chain against training every member, or only the largest, independently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_chain.cost.macs import clip_macs
from hf_chain.cost.training import MemberCost
from hf_chain.errors import HfChainError


@dataclass(frozen=True)
class FamilyCost:
    """A chain of members and the independent training it replaces.

    The chain pays for its first member, for every teacher forward and for evaluation. The independent twin of a member
    has the same data, captions and token savings; only its epochs differ and it has no teacher.

    Attributes:
        members (`Sequence[MemberCost]`): Members from small to large.
        baseline_epochs (`float`, *optional*): Epochs of independent training; the first member's epochs by default.
    """

    members: Sequence[MemberCost]
    baseline_epochs: float | None = None

    def __post_init__(self) -> None:
        if not self.members:
            raise HfChainError("The family has no members: add at least one to the recipe")
        if self.independent_epochs <= 0:
            raise HfChainError(f"baseline_epochs is {self.independent_epochs}: it must be above 0")

    @property
    def independent_epochs(self) -> float:
        """Epochs every member is trained for when it is trained alone."""
        return self.members[0].epochs if self.baseline_epochs is None else self.baseline_epochs

    @property
    def chain_macs(self) -> int:
        """MACs of the chain, teachers and evaluation included."""
        return sum(member.training_macs["total"] + member.evaluation_macs for member in self.members)

    @property
    def independent_macs(self) -> int:
        """MACs of training every member from scratch, evaluation included."""
        return sum(self.alone(member) for member in self.members)

    @property
    def largest(self) -> MemberCost:
        """The member with the most parameters."""
        return max(self.members, key=lambda member: member.parameters)

    @property
    def family_ratio(self) -> float:
        """Acceleration ratio: cost of independent training divided by the chain's (published: 5.68 for T→S→B→L)."""
        return self.independent_macs / self.chain_macs

    @property
    def largest_alone_ratio(self) -> float:
        """Cost of the whole chain divided by that of its largest member alone (published: 0.28 for T→S→B→L)."""
        return self.chain_macs / self.alone(self.largest)

    def alone(self, member: MemberCost) -> int:
        """MACs of training and evaluating `member` from scratch for the baseline epochs.

        Args:
            member (`MemberCost`): One of the family.

        Returns:
            `int`: Multiply-accumulate operations.
        """
        return member.independent_training_macs(self.independent_epochs) + member.evaluation_macs

    def to_json(self) -> dict[str, Any]:
        """The plan as `hf-chain plan --json` prints it; every cost is in MACs.

        Returns:
            `dict`: Plain values.
        """
        return {
            "members": [self._row(member) for member in self.members],
            "baseline_epochs": self.independent_epochs,
            "chain_macs": self.chain_macs,
            "independent_macs": self.independent_macs,
            "family_ratio": self.family_ratio,
            "largest_alone_ratio": self.largest_alone_ratio,
        }

    def _row(self, member: MemberCost) -> dict[str, Any]:
        towers = clip_macs(member.config, member.text_tokens, member.image_token_keep)
        training = member.training_macs
        return {
            "name": member.name,
            "parameters": member.parameters,
            "macs_per_sample": member.macs_per_sample,
            "macs_per_image": towers.image,
            "macs_per_caption": towers.text,
            "captions": member.captions,
            "text_share": member.text_share,
            "epochs": member.epochs,
            "samples": member.samples,
            "training_macs": training["total"],
            "student_macs": training["student"],
            "teacher_macs": training["teacher"],
            "evaluation_macs": member.evaluation_macs,
            "independent_training_macs": member.independent_training_macs(self.independent_epochs),
        }
