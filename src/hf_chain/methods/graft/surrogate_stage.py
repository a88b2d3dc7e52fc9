"""The surrogate: where the target is cut, what is kept, and how the cut is mended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from hf_chain.cost.macs import decoder_macs
from hf_chain.cost.table import human
from hf_chain.files import whole_folder, write_json
from hf_chain.grafting.anatomy import text_config
from hf_chain.grafting.cut import BUDGET_TOKENS, CHOOSING, Cut, choose_cut
from hf_chain.grafting.lineage import read_lineage
from hf_chain.grafting.ranges import parse_ranges
from hf_chain.grafting.recut import check_larger
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.translator.fit import fit_translator
from hf_chain.grafting.translator.quality import measure_quality
from hf_chain.grafting.translator.report import TranslatorReport
from hf_chain.grafting.translator.translator_config import TranslatorConfig, fields_for
from hf_chain.grafting.translator_table import perplexity_remark
from hf_chain.hub import predecessor_revision
from hf_chain.methods.graft.context import GraftContext, load_target
from hf_chain.methods.graft.headline import on_gpus
from hf_chain.runs.saved import saved_fields

logger = logging.get_logger(__name__)

NAME = "surrogate"


@dataclass
class SurrogateStage:
    """Cuts the surrogate out of the target and makes its translators. One process does it, the others wait."""

    context: GraftContext

    name = NAME

    def run(self) -> None:
        """Builds the surrogate and saves it as a stock folder, with trajectory and translator report."""
        context = self.context
        if not context.main_process:
            return
        if context.is_saved(NAME):
            context.remove_checkpoints(NAME)
            return
        start, settings, source = time.perf_counter(), context.recipe.surrogate, context.target_source
        revision = context.recipe.target.revision
        context.check_saved("target")
        target, tokenizer = load_target(context, **on_gpus())
        context.note("started", NAME, index=context.index(NAME), parent=predecessor_revision(source, revision))
        with whole_folder(context.folder(NAME)) as folder:
            cut = self._cut(target, tokenizer)
            replaced = ", ".join(map(str, cut.ranges))
            for stage in context.recipe.stages:
                if stage.replaced is not None:
                    check_larger(parse_ranges(stage.replaced), cut.ranges)
            cut.write(folder)
            logger.warning(f"{NAME}: layers {replaced} of {source} are replaced")
            surrogate = build_surrogate(
                source if context.recipe.target.dtype == "auto" else target,
                cut.ranges,
                translators=settings.translators,
                revision=revision,
            ).to(target.device)
            with context.tracked(NAME).told():
                report = fit_translator(
                    surrogate,
                    target,
                    context.conversations.calibration(tokenizer, settings.calibration.translator_samples),
                    settings.translator,
                    args=self._training(surrogate),
                )
            # What measuring it takes counts as little as the seconds of other stages' evaluations.
            seconds = time.perf_counter() - start
            held_out = context.conversations.calibration(
                tokenizer, settings.calibration.samples, skip=settings.calibration.translator_samples
            )
            report = replace(report, quality=measure_quality(surrogate, target, held_out))
            chosen = settings.replaced if settings.replaced in CHOOSING else None
            logger.warning(f"{NAME}: {saving_line(target.config, surrogate.config, chosen)}")
            if report.quality is not None and (remark := perplexity_remark(asdict(report.quality))):
                logger.warning(f"{NAME}: {remark}")
            surrogate.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            write_json(folder / "translator.json", asdict(report))
            context.note(
                "trained",
                NAME,
                parameters=surrogate.num_parameters(),
                macs_per_sample=decoder_macs(surrogate.config, 1),
                operator=f"layers {replaced}, {report.method}",
                training_macs={"cut": cut.macs, "translator": report.macs, "total": report.macs + cut.macs},
                seconds=round(seconds, 1),
            )
            context.describe(NAME, folder)
        context.note("saved", NAME, **saved_fields(context.folder(NAME)))
        context.remove_checkpoints(NAME)

    def _cut(self, target: PreTrainedModel, tokenizer: Any) -> Cut:
        settings, text = self.context.recipe.surrogate, self.context.conversations.calibration
        return choose_cut(
            target,
            settings.replaced,
            text(tokenizer, settings.calibration.samples),
            text(tokenizer, settings.calibration.translator_samples),
            budget=settings.limit,
            translators=settings.translators,
        )

    def _training(self, surrogate: PreTrainedModel) -> TranslatorConfig | None:
        options = fields_for(surrogate) | self.context.tracked(NAME).fields
        if not any(method.startswith("train") for method in self.context.recipe.surrogate.translator):
            return None
        return TranslatorConfig(
            output_dir=str(self.context.checkpoints(NAME)), seed=self.context.recipe.seed, **options
        )


LITTLE = 0.2
"""Share of the target's MACs below which a surrogate saves little: the encoder costs the same with either, and making
the surrogate comes on top."""


def saving_line(target: PreTrainedConfig, surrogate: PreTrainedConfig, criterion: str | None = None) -> str:
    """What a surrogate saves, with a warning where a criterion has chosen one that saves little.

    Args:
        target (`PreTrainedConfig`): the target's configuration.
        surrogate (`PreTrainedConfig`): the surrogate's.
        criterion (`str`, *optional*): what has chosen the layers, where they were not named.
    """
    whole, part = (decoder_macs(text_config(config), BUDGET_TOKENS) for config in (target, surrogate))
    saving = 1 - part / whole
    if criterion is not None and saving < LITTLE:
        logger.warning(
            f"the cut that {criterion} chose saves only {saving:.0%} of the language model's MACs, and training on the"
            " surrogate no more than that: give a budget, such as macs_share=0.6, or name more layers"
        )
    return f"{saving:.0%} of the language model's MACs are saved"


def cut_lines(surrogate: PreTrainedModel) -> list[str]:
    """What is kept, and what is replaced by what."""
    lineage = read_lineage(surrogate.config)
    by = "1 layer" if lineage.translators == 1 else f"{lineage.translators} layers each"
    return [
        f"{len(lineage.kept_layers)} of {lineage.target_layers} layers are kept ({_spans(lineage.kept_layers)}),"
        f" {human(surrogate.num_parameters())} parameters",
        f"layers {' and '.join(map(str, lineage.replaced))} are replaced by {by}, made by {lineage.translator_method}",
    ]


def quality_lines(report: TranslatorReport) -> list[str]:
    """What its translators are worth; nothing where that was not measured."""
    quality = report.quality
    if quality is None:
        return []
    reference = quality.reference
    return [
        f"splice error {_errors(quality.splice_error)} (layers dropped: {_errors(reference.dropping_splice_error)})",
        f"perplexity {quality.perplexity:.4g} (target: {reference.target_perplexity:.4g}, layers dropped:"
        f" {reference.dropping_perplexity:.4g})",
        *([remark] if (remark := perplexity_remark(asdict(quality))) else []),
    ]


def _errors(errors: Sequence[float]) -> str:
    return ", ".join(f"{error:.3f}" for error in errors)


def _spans(layers: Sequence[int]) -> str:
    """Runs of numbers: 0, 1, 2, 5 -> 0-2, 5."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
