"""The surrogate: where the target is cut, what is kept, and how the cut is mended."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import logging

from hf_chain.cost.transformer import decoder_macs
from hf_chain.files import weights_sha256, whole_folder, write_json
from hf_chain.grafting.cut import Cut, choose_cut
from hf_chain.grafting.ranges import parse_ranges
from hf_chain.grafting.recut import check_larger
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.grafting.translator.fit import fit_translator
from hf_chain.grafting.translator.translator_config import TranslatorConfig, fields_for
from hf_chain.hub import predecessor_revision
from hf_chain.stages.graft.grafted import on_gpus
from hf_chain.stages.graft.loaded_target import load_target
from hf_chain.stages.graft.workplace import Workplace

logger = logging.get_logger(__name__)

NAME = "surrogate"


@dataclass
class SurrogateStage:
    """Cuts the surrogate out of the target and makes its translators. One process does it, the others wait."""

    place: Workplace

    def run(self) -> None:
        """Builds the surrogate and saves it as a stock folder, with trajectory and translator report."""
        place = self.place
        if not place.main_process:
            return
        if place.is_saved(NAME):
            place.remove_checkpoints(NAME)
            return
        start, settings, source = time.perf_counter(), place.recipe.surrogate, place.target_source
        revision = place.recipe.target.revision
        target, tokenizer = load_target(place, **on_gpus())
        place.note("started", NAME, index=place.stage_names.index(NAME), parent=predecessor_revision(source, revision))
        with whole_folder(place.folder(NAME)) as folder:
            cut = self._cut(target, tokenizer)
            replaced = ", ".join(map(str, cut.ranges))
            for stage in place.recipe.stages:
                if stage.replaced is not None:
                    check_larger(parse_ranges(stage.replaced), cut.ranges)
            cut.write(folder)
            logger.warning(f"{NAME}: layers {replaced} of {source} are replaced")
            surrogate = build_surrogate(
                source if place.recipe.target.dtype == "auto" else target,
                cut.ranges,
                translators=settings.translators,
                revision=revision,
            ).to(target.device)
            report = fit_translator(
                surrogate,
                target,
                place.conversations.calibration(tokenizer, settings.calibration.translator_samples),
                settings.translator,
                held_out=place.conversations.calibration(
                    tokenizer, settings.calibration.samples, skip=settings.calibration.translator_samples
                ),
                args=self._training(surrogate),
            )
            surrogate.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            write_json(folder / "translator.json", asdict(report))
            place.note(
                "trained",
                NAME,
                parameters=surrogate.num_parameters(),
                macs_per_sample=decoder_macs(surrogate.config, 1),
                operator=f"layers {replaced}, {report.method}",
                training_macs={"student": report.macs, "teacher": cut.macs, "total": report.macs + cut.macs},
                seconds=round(time.perf_counter() - start, 1),
            )
            place.describe(NAME, folder)
        place.note("saved", NAME, folder=place.folder(NAME).name, weights_sha256=weights_sha256(place.folder(NAME)))
        place.remove_checkpoints(NAME)

    def _cut(self, target: PreTrainedModel, tokenizer: Any) -> Cut:
        settings, text = self.place.recipe.surrogate, self.place.conversations.calibration
        return choose_cut(
            target,
            settings.replaced,
            text(tokenizer, settings.calibration.samples),
            text(tokenizer, settings.calibration.translator_samples),
            budget=settings.limit,
            translators=settings.translators,
        )

    def _training(self, surrogate: PreTrainedModel) -> TranslatorConfig | None:
        options = fields_for(surrogate) | self.place.recipe.surrogate.translator_training
        if not any(method.startswith("train") for method in self.place.recipe.surrogate.translator):
            return None
        return TranslatorConfig(output_dir=str(self.place.checkpoints(NAME)), seed=self.place.recipe.seed, **options)
