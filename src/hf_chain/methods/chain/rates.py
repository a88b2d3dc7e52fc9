"""Learning rates and warm-ups of members as rules, instead of a number for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from hf_chain.settings import Settings

WIDTHS = ("hidden_size", "n_embd", "embed_dim", "hidden_sizes")
"""Fields of configurations that say how wide a model is; of a list its last entry does."""


class RateRules(Settings):
    """How learning rate and warm-up follow from a member's width, and from whether it has grown.

    What a member's own `training` says goes before them.
    """

    width_power: float = Field(
        0.0,
        ge=0,
        le=2,
        description="A member's rate is the recipe's × (base width / its own width) to this power: 1 is what μP has "
        "for hidden weights, 0 the same rate for all.",
    )
    base_width: int | None = Field(
        None, ge=1, description="Width that the recipe's rate suits; null takes the first member's."
    )
    grown: float = Field(1.0, gt=0, le=10, description="Factor on the rate of members that grow.")
    grown_warmup: float | None = Field(
        None, ge=0, description="`warmup_steps` of members that grow; null takes the recipe's."
    )

    def fields(self, training: Mapping[str, Any], first: Any, member: Any, grows: bool) -> dict[str, Any]:
        """`ChainConfig` fields of a member by these rules.

        Args:
            training (`Mapping`): the recipe's.
            first (`MemberSettings`): the first member.
            member (`MemberSettings`): the member.
            grows (`bool`): whether it grows from another.

        Raises:
            ValueError: when there is no rate or no width to begin with.
        """
        factor = self.grown if grows else 1.0
        if self.width_power:
            factor *= ((self.base_width or width_of(first)) / width_of(member)) ** self.width_power
        found: dict[str, Any] = {}
        if factor != 1:
            if "learning_rate" not in training:
                raise ValueError("rates has rules and training no learning_rate to begin with; give it")
            found["learning_rate"] = training["learning_rate"] * factor
        if grows and self.grown_warmup is not None:
            found["warmup_steps"] = self.grown_warmup
        return found


def width_of(member: Any) -> int:
    """The width of a member's widest part.

    Args:
        member (`MemberSettings`): with the sizes of one model, or of its towers.

    Raises:
        ValueError: when it names none.
    """
    widths = list(_widths(member.model_dump()))
    if not widths:
        raise ValueError(
            f"rates.width_power is not 0, and members.{member.name} says no width by {', '.join(WIDTHS)}; set it to 0"
        )
    return max(widths)


def _widths(values: Mapping[str, Any]) -> Iterator[int]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _widths(value)
        elif name in WIDTHS and value:
            yield value[-1] if isinstance(value, list) else value
