"""Training until a held-out target is reached: what recipes say of it, and when it is over; starts no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator, model_validator

from hf_chain.cost import branch_steps
from hf_chain.evaluation.metrics import METRICS, metric_of
from hf_chain.runs.recipe_file import suggestion
from hf_chain.settings import Settings, expanded

KINDS = ("target", "margin", "curve")
"""What a target is given by."""
REACHED, PATIENCE, CAP = "reached", "patience", "cap"
"""Why a training ended."""


class UntilSettings(Settings):
    """What ends the training of a member before its epochs are over."""

    metric: str | None = Field(None, description="Metric that decides; null takes the main one of the task.")
    split: str = Field("validation", description="Split that it is measured on, one of those that are evaluated.")
    target: float | None = Field(None, description="Value that ends the training.")
    margin: float | None = Field(
        None, gt=0, description="Instead: so much better than what the predecessor was delivered with."
    )
    curve: str | None = Field(
        None, min_length=1, description="Instead: as good as the best member of this size in the run in that folder."
    )
    every: float = Field(0.05, gt=0, lt=1, description="Share of the epochs between two evaluations.")
    patience: int | None = Field(
        None, ge=1, description="End as well after so many evaluations without a new best; null never does."
    )
    max_samples: int | None = Field(None, ge=1, description="Samples of these evaluations; null takes evaluation's.")

    _paths = field_validator("curve")(expanded)

    @field_validator("metric")
    @classmethod
    def _is_known(cls, metric: str | None) -> str | None:
        if metric is not None and metric not in METRICS:
            raise ValueError(f"metric is {metric!r}, which is unknown{suggestion(metric, list(METRICS))}")
        return metric

    @model_validator(mode="after")
    def _has_one_target(self) -> UntilSettings:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"until has {' and '.join(given) or 'no target'}; give one of {', '.join(KINDS)}")
        if self.target is None and self.max_samples is not None:
            raise ValueError(
                f"until.max_samples is {self.max_samples}, and {given[0]} is compared with figures of "
                "evaluation.max_samples; leave it out"
            )
        return self

    def steps(self, cap: int, trunk_decay: float | None) -> list[int]:
        """Steps after which a member is measured: none of its branch, and the last before that always.

        Args:
            cap (`int`): steps of the whole training.
            trunk_decay (`float`, *optional*): share of the branch, where it has one.
        """
        last = cap - branch_steps(trunk_decay, cap)
        found = {max(1, round(number * self.every * cap)) for number in range(1, int(1 / self.every) + 1)}
        return sorted({step for step in found if step < last} | {last})


def check_until(recipe: Any) -> None:
    """Checks what members are trained until against the rest of their recipe.

    Args:
        recipe (`ChainRecipe`): the recipe.

    Raises:
        ValueError: naming the member.
    """
    for member in recipe.members:
        until, where = recipe.until_of(member), f"members.{member.name}"
        if until is None:
            continue
        if until.margin is not None and recipe.parent_of(member) is None:
            raise ValueError(
                f"{where} has no predecessor in this run, and until.margin is {until.margin:g}; give it an until of "
                "its own with a target"
            )
        if until.split not in recipe.evaluated_splits:
            raise ValueError(
                f"{where}: until.split is {until.split!r}, which is not evaluated; use "
                f"{' or '.join(recipe.evaluated_splits)}"
            )
        if merge := recipe.training_of(member).get("trunk_merge"):
            raise ValueError(
                f"{where} has until, and training.trunk_merge is {merge}, which merges states of the end of the whole "
                "training; leave one of them out"
            )


@dataclass(frozen=True)
class Goal:
    """What a member is trained for.

    Args:
        metric (`str`): a metric.
        split (`str`): where it is measured.
        target (`float`): the value.
        patience (`int`, *optional*): evaluations without a new best that end the training as well.
    """

    metric: str
    split: str
    target: float
    patience: int | None = None

    def verdict(self, curve: Sequence[dict[str, Any]]) -> str | None:
        """Why the training ends after the last point of a curve, as `MemberRecord.curve`; `None` where it goes on."""
        if not curve:
            return None
        values, target = [point["metrics"][self.metric] for point in curve], self.target
        if metric_of(self.metric).lower_is_better:
            values, target = [-value for value in values], -target
        if values[-1] >= target:
            return REACHED
        # Of equal ones the first is the best.
        waited = len(values) - 1 - values.index(max(values))
        return PATIENCE if self.patience is not None and waited >= self.patience else None
