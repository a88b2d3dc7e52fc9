"""Where a target is cut: layers that are named, or that a criterion chooses from its trajectory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM

from hf_chain.cost.macs import decoder_macs
from hf_chain.errors import HfChainError
from hf_chain.files import write_text
from hf_chain.grafting.anatomy import num_layers, text_config
from hf_chain.grafting.batches import Batch, check_batches, input_device
from hf_chain.grafting.criteria import CRITERIA, choose_ranges
from hf_chain.grafting.layer_config import surrogate_config
from hf_chain.grafting.layer_dropping import drop_layers
from hf_chain.grafting.ranges import Budget, LayerRange, Replaced, as_ranges, check_ranges, kept_layers
from hf_chain.grafting.target import open_target
from hf_chain.grafting.trajectory import Trajectory, measure_trajectory
from hf_chain.grafting.translator.least_squares import closed_form

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CHOOSING = tuple(name for name in CRITERIA if name != "explicit")
"""Criteria that choose by themselves."""


COMPARING = ("block_influence", "splice_error")
"""Those that compare ranges of one size, which a budget gives."""

BUDGET_TOKENS = 256
"""Sequence length at which shares of MACs are compared before there is text to measure."""


@dataclass(frozen=True)
class Cut:
    """The ranges to replace, and what it took to find them.

    Attributes:
        ranges (`tuple[LayerRange]`): the ranges.
        translators (`int`): layers that stand in for each.
        macs (`int`): multiply-accumulate operations spent on the choice.
        trajectory (`Trajectory`, *optional*): what a criterion read.
    """

    ranges: tuple[LayerRange, ...]
    translators: int
    macs: int = 0
    trajectory: Trajectory | None = None

    def write(self, folder: Path) -> None:
        """Writes the trajectory as JSON, as Markdown and as a plot, where there is one.

        Args:
            folder (`Path`): an existing folder.
        """
        if self.trajectory is None:
            return
        from hf_chain.grafting.trajectory_report import plot_trajectory, trajectory_report

        write_text(folder / "trajectory.json", self.trajectory.to_json())
        report = trajectory_report(self.trajectory, self.ranges, translators=self.translators)
        write_text(folder / "trajectory.md", report)
        plot_trajectory(self.trajectory, folder / "trajectory.png", self.ranges, translators=self.translators)


def choose_cut(
    target: PreTrainedModel,
    replaced: str,
    text: Iterable[Batch],
    fitting_text: Iterable[Batch],
    *,
    budget: Budget | None = None,
    translators: int = 1,
) -> Cut:
    """Reads the ranges, or measures the trajectory and chooses them.

    Args:
        target (`PreTrainedModel`): the language model.
        replaced (`str`): ranges such as `16-26`, or one of `CHOOSING`.
        text (`Iterable[Batch]`): what the trajectory is measured on.
        fitting_text (`Iterable[Batch]`): what `splice_error` fits translators on.
        budget (`Budget`, *optional*): the most that the surrogate may be; criteria follow it.
        translators (`int`): layers that stand in for each range.

    Returns:
        `Cut`: the ranges, and what it took to find them.

    Raises:
        HfChainError: when the ranges do not fit the target, or no range meets the budget.
    """
    if replaced not in CHOOSING:
        return Cut(check_ranges(named_ranges(replaced), num_layers(target.config), translators), translators)
    if replaced == "splice_error":
        check_batches(fitting_text, "the text that translators are fitted on")
    trajectory = measure_trajectory(target, text)
    errors = _SpliceErrors(target, fitting_text, translators) if replaced == "splice_error" else None
    ranges = choose_ranges(trajectory, replaced, budget=budget, translators=translators, splice_errors=errors)
    return Cut(ranges, translators, trajectory.macs + (errors.macs if errors else 0), trajectory)


def named_ranges(replaced: Replaced) -> tuple[LayerRange, ...]:
    """Ranges that are named and not chosen by a criterion.

    Args:
        replaced (`str`, `LayerRange` or `Sequence`): as for `as_ranges`.

    Returns:
        `tuple[LayerRange]`: the ranges, in the order given.

    Raises:
        HfChainError: when the text names neither ranges nor a criterion.
    """
    try:
        return as_ranges(replaced)
    except HfChainError as error:
        raise HfChainError(f"{error}; or one of {', '.join(CHOOSING)}") from error


def check_budget(config: PreTrainedConfig, replaced: str, budget: Budget | None, translators: int = 1) -> None:
    """Refuses a budget that no range meets, and a criterion without the one it needs, before anything is measured.

    Args:
        config (`PreTrainedConfig`): the target's.
        replaced (`str`): ranges or a criterion.
        budget (`Budget`, *optional*): the most that the surrogate may be.
        translators (`int`): layers that stand in for a range.

    Raises:
        HfChainError: saying which.
    """
    if budget is not None and not isinstance(budget, Budget):
        raise HfChainError(f"budget is {budget!r}: give a Budget, such as Budget(layers=12)")
    layers = num_layers(config)
    if replaced in COMPARING and budget is None:
        raise HfChainError(
            f"{replaced} compares ranges of one size: give a budget in parameters, macs_share or layers"
        )
    if layers - 1 <= translators:
        raise HfChainError(
            f"no range drops a layer of the target's {layers} with translators={translators}: take fewer translators"
        )
    if not is_affordable(config, budget, kept_layers((LayerRange(0, layers - 2),), layers, translators)):
        raise HfChainError(
            f"no range of the target's {layers} layers leaves {budget} with translators={translators}: give a larger "
            "budget"
        )


def is_affordable(config: PreTrainedConfig, budget: Budget | None, kept: Sequence[int]) -> bool:
    """Whether a surrogate with these layers of a target is within a budget; no weights are needed.

    Args:
        config (`PreTrainedConfig`): the target's.
        budget (`Budget`, *optional*): the most that the surrogate may be; without one all are.
        kept (`Sequence[int]`): the target's layers that the surrogate has.

    Returns:
        `bool`: whether it is; shares of MACs are compared on `BUDGET_TOKENS` tokens.
    """
    if budget is None:
        return True
    if budget.layers is not None:
        return len(kept) <= budget.layers
    if budget.macs_share is not None:
        text = text_config(config)
        share = decoder_macs(text, BUDGET_TOKENS, layers=kept) / decoder_macs(text, BUDGET_TOKENS)
        return share <= budget.macs_share
    with torch.device("meta"):
        surrogate = surrogate_config(config, {layer: number for number, layer in enumerate(kept)})
        parameters = AutoModelForCausalLM.from_config(surrogate).num_parameters()
    return bool(parameters <= (budget.parameters or 0))


@dataclass
class _SpliceErrors:
    """The error that is left at the splice of a range by a translator fitted in closed form."""

    target: PreTrainedModel
    text: Iterable[Batch]
    translators: int
    macs: int = field(default=0, init=False)

    def __call__(self, span: LayerRange) -> float:
        surrogate = drop_layers(open_target(self.target), [span], self.translators).to(
            input_device(self.target) or "cpu"
        )
        (fit,) = closed_form(surrogate, self.target, self.text)
        self.macs += fit.macs
        return fit.error_after
