"""Ways of making a translator side by side: each on a fresh surrogate of the same ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hf_chain.grafting.batches import Batch, check_batches, input_device
from hf_chain.grafting.layer_dropping import drop_layers
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.ranges import Replaced, as_ranges
from hf_chain.grafting.target import open_target
from hf_chain.grafting.translator.fit import Method, fit_translator, method_steps
from hf_chain.grafting.translator.quality import Reference, measure_quality, measure_reference
from hf_chain.grafting.translator.report import TranslatorReport
from hf_chain.grafting.translator.translator_config import TranslatorConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COMPARED: tuple[Method, ...] = (
    "inherit",
    "closed_form",
    "train:hidden",
    "train:logits",
    "train:lm",
    ("closed_form", "train:hidden"),
    ("closed_form", "train:logits"),
)
"""What is compared when nothing else is said."""


def compare_translators(
    target: PreTrainedModel,
    ranges: Replaced,
    calibration: Iterable[Batch],
    held_out: Iterable[Batch],
    methods: Sequence[Method] = COMPARED,
    *,
    translators: int = 1,
    args: TranslatorConfig | None = None,
) -> list[TranslatorReport]:
    """Makes translators of the same ranges by several methods and measures them; `translator_table` writes the table.

    One surrogate is in memory at a time, on the target's device.

    Args:
        target (`PreTrainedModel`): the language model, in memory.
        ranges (`str`, `LayerRange`, `range` or a sequence of them): the replaced ranges, such as `"16-26"`.
        calibration (`Iterable[Batch]`): text to fit and to train on.
        held_out (`Iterable[Batch]`): other text to measure on.
        methods (`Sequence`): see `fit_translator`; every entry is one row.
        translators (`int`): layers that stand for each range.
        args (`TranslatorConfig`, *optional*): how to train.

    Returns:
        `list[TranslatorReport]`: one for each method, in their order.

    Raises:
        HfChainError: as `build_surrogate` and `fit_translator`.
    """
    for method in methods:
        method_steps(method)
    check_batches(calibration, "calibration")
    check_batches(held_out, "held_out")
    reports: list[TranslatorReport] = []
    reference: Reference | None = None
    for method in methods:
        surrogate = drop_layers(open_target(target), as_ranges(ranges), translators).to(input_device(target) or "cpu")
        report = fit_translator(surrogate, target, calibration, method, args=args)
        reference = reference or measure_reference(target, read_lineage(surrogate.config).replaced, held_out)
        reports.append(replace(report, quality=measure_quality(surrogate, target, held_out, reference)))
    return reports
