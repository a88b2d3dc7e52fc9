"""The translator fitted again on image prompts, between two stages on the surrogate.

Fitted on text alone, a translator has not met image embeddings, and leaves out of place what it makes of them: what an
encoder learns against that does not hold on the target.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from hf_chain.data.chat.collator import ChatCollator
from hf_chain.evaluation.answer_cost import image_macs
from hf_chain.grafting.recut import recut
from hf_chain.grafting.trained_layers import carry_layers
from hf_chain.grafting.translator.fit import fit_translator
from hf_chain.grafting.translator.image_prompts import ImagePrompts
from hf_chain.grafting.translator.least_squares import calibration_passes
from hf_chain.grafting.translator.report import TranslatorReport
from hf_chain.models.grafted_vlm import GraftedVLMForConditionalGeneration, GraftedVLMProcessor
from hf_chain.stages.graft.grafted import on_gpus
from hf_chain.stages.graft.loaded_target import load_target
from hf_chain.stages.graft.recipe import GraftStageSettings
from hf_chain.stages.graft.workplace import Workplace


@dataclass(frozen=True)
class TranslatorRefit:
    """What came out of a refit, and what it took, as the ledger notes it."""

    model: GraftedVLMForConditionalGeneration
    report: TranslatorReport
    figures: dict[str, Any]


def refit_translator(
    place: Workplace,
    settings: GraftStageSettings,
    model: GraftedVLMForConditionalGeneration,
    processor: GraftedVLMProcessor,
) -> TranslatorRefit:
    """Fits the translator of a model on a surrogate, in place, by least squares against the target.

    Where the stage names layers to replace, the model is first put onto a surrogate in which only those are. Layers
    that were trained on the surrogate are in the target too, as the graft will put them there.

    Args:
        place (`Workplace`): what all stages share.
        settings (`GraftStageSettings`): a stage with `refit`.
        model (`GraftedVLMForConditionalGeneration`): the model, whose adapter has been trained.
        processor (`GraftedVLMProcessor`): its processor.

    Returns:
        `TranslatorRefit`: with the model, which is another one where the surrogate is.
    """
    start, recipe = time.perf_counter(), place.recipe
    collator = ChatCollator(
        processor, max_length=recipe.max_length, image_prompts=recipe.image_prompts, seed=recipe.seed
    )
    rows = place.conversations.prompts(settings.data, settings.refit or 0, collator)
    target, _ = load_target(place, **on_gpus())
    if settings.replaced is None:
        carry_layers(model.language_model, target)
    else:
        model = recut(model, target, settings.replaced, translators=recipe.surrogate.translators)
    decoder = model.language_model
    prompts = ImagePrompts(model, rows, collator, recipe.surrogate.calibration.batch_size)
    report = fit_translator(decoder, target, prompts, "closed_form")
    layers = ", ".join(report.replaced)
    done = f"translator of layers {layers} fitted again"
    if settings.replaced is not None:
        done = f"larger surrogate with layers {layers} replaced, its translator fitted"
    passes = len(report.replaced) * calibration_passes(decoder.config)
    macs = report.macs + passes * image_macs(model, sum(len(row["images"]) for row in rows))
    figures = {
        "samples": len(rows),
        "parameters": model.num_parameters(),
        "operator": done,
        "training_macs": {"student": macs, "teacher": 0, "total": macs},
        "seconds": round(time.perf_counter() - start, 1),
    }
    return TranslatorRefit(model, report, figures)
