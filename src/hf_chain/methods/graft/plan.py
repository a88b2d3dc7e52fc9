"""What a graft will cost, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from hf_chain.cost.steps import MemoryEstimate
from hf_chain.cost.table import GraftComparison, comparison_sentences, hours, human, markdown_table


@dataclass(frozen=True)
class Measured:
    """Conversations that were measured for the plan.

    Attributes:
        rows (`int`): conversations there are.
        sampled (`int`): of which so many were measured.
        tokens (`float`): mean length, image positions included.
        images (`float`): mean number of images.
    """

    rows: int
    sampled: int
    tokens: float
    images: float


@dataclass(frozen=True)
class SurrogatePlan:
    """The cut.

    Attributes:
        replaced (`list[str]`): ranges that are replaced.
        assumed (`bool`): whether a criterion has yet to choose them.
        layers (`int`): layers that are left.
        target_layers (`int`): layers of the target.
        cut_macs (`int`): finding the cut.
        translator_macs (`int`): making the translator.
    """

    replaced: list[str]
    assumed: bool
    layers: int
    target_layers: int
    cut_macs: int
    translator_macs: int


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        name (`str`): its name.
        decoder (`str`): `surrogate` or `target`.
        parts (`list[str]`): what is trained.
        parameters (`int`): of the whole model.
        trained_parameters (`int`): of what is trained.
        samples (`int`): conversations it is trained on.
        macs (`int`): training.
        evaluation_macs (`int`): the questions asked after it.
        memory (`MemoryEstimate`): on one device.
    """

    name: str
    decoder: str
    parts: list[str]
    parameters: int
    trained_parameters: int
    samples: int
    macs: int
    evaluation_macs: int
    memory: MemoryEstimate


@dataclass(frozen=True)
class GraftPlan:
    """A recipe's stages with their cost.

    Attributes:
        data (`dict[str, Measured]`): what the lengths were measured on.
        surrogate (`SurrogatePlan`, *optional*): the cut, where there is one.
        stages (`list[StagePlan]`): the stages.
        baseline (`list[StagePlan]`): ordinary training.
    """

    data: dict[str, Measured]
    surrogate: SurrogatePlan | None
    stages: list[StagePlan]
    baseline: list[StagePlan]

    @property
    def memory(self) -> dict[str, MemoryEstimate]:
        """Stage -> bytes on one device."""
        return {stage.name: stage.memory for stage in (*self.stages, *self.baseline)}

    @property
    def costs(self) -> dict[str, float]:
        """What the graft costs, in MACs."""
        cut = self.surrogate
        own = {"finding the cut": cut.cut_macs, "making the translator": cut.translator_macs} if cut else {}
        return {**own, **_costs(self.stages)}

    @property
    def comparison(self) -> GraftComparison | None:
        """Both sides in MACs; `None` without a baseline."""
        ours, baseline = self.costs, _costs(self.baseline)
        return GraftComparison(ours, baseline, "MACs") if sum(ours.values()) and sum(baseline.values()) else None

    def to_json(self) -> dict[str, Any]:
        """The plan as a script wants it."""
        comparison = self.comparison
        return {
            **asdict(self),
            "comparison": None if comparison is None else comparison.to_json(),
            "memory": {name: memory.total for name, memory in self.memory.items()},
        }


def graft_table(plan: GraftPlan, tflops_per_second: float | None = None) -> str:
    """Writes a plan: its stages, what was measured, and the saving in words.

    Args:
        plan (`GraftPlan`): the plan.
        tflops_per_second (`float`, *optional*): sustained throughput; adds hours.

    Returns:
        `str`: Markdown, without a trailing newline.
    """
    header = ["stage", "decoder", "trained", "parameters", "samples", "training MACs", "evaluation MACs"]
    rows = [*_cut_rows(plan.surrogate), *map(_row, plan.stages), *(_row(s, "baseline: ") for s in plan.baseline)]
    return markdown_table(header, rows) + "\n\n" + "\n".join(_sentences(plan, tflops_per_second))


def _sentences(plan: GraftPlan, tflops_per_second: float | None) -> list[str]:
    sentences = [
        f"{name}: {one.rows:,} conversations with {one.tokens:.0f} tokens, image positions included, in the mean of"
        f" {one.sampled:,}."
        for name, one in plan.data.items()
    ]
    if plan.surrogate is not None and plan.surrogate.assumed:
        sentences.append("The cut is assumed: the run chooses it when it has measured the target.")
    comparison = plan.comparison
    sentences += comparison_sentences(comparison) if comparison else ["There is no baseline to compare with."]
    if tflops_per_second is not None:
        ours = hours(sum(plan.costs.values()), tflops_per_second)
        line = f"At {tflops_per_second:g} TFLOP/s the graft takes {ours:.3g} hours"
        if comparison:
            line += f" and the baseline {hours(comparison.baseline_total, tflops_per_second):.3g}"
        sentences.append(f"{line}.")
    return sentences


def _cut_rows(cut: SurrogatePlan | None) -> list[list[str]]:
    if cut is None:
        return []
    what = f"{cut.layers} of {cut.target_layers} layers, without {', '.join(cut.replaced)}"
    return [
        ["finding the cut", "target", what, "", "", human(cut.cut_macs), ""],
        ["making the translator", "surrogate", "translator", "", "", human(cut.translator_macs), ""],
    ]


def _row(stage: StagePlan, prefix: str = "") -> list[str]:
    trained = f"{', '.join(stage.parts)} ({human(stage.trained_parameters)})" if stage.parts else "nothing"
    macs = (human(stage.macs), human(stage.evaluation_macs))
    return [prefix + stage.name, stage.decoder, trained, human(stage.parameters), f"{stage.samples:,}", *macs]


def _costs(stages: Iterable[StagePlan]) -> dict[str, float]:
    stages = list(stages)
    costs: dict[str, float] = {stage.name: stage.macs for stage in stages}
    return {**costs, "all evaluations": sum(stage.evaluation_macs for stage in stages)}
