"""A stage with a vision-language model: joined or grafted, trained in parts or not at all, asked and saved."""

from __future__ import annotations

import gc
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_chain.data.chat.collator import ChatCollator
from hf_chain.engine import build_whole_again
from hf_chain.evaluation.generate import image_macs
from hf_chain.evaluation.question_answering import spread
from hf_chain.files import first_difference, whole_folder, write_json
from hf_chain.grafting.graft import graft
from hf_chain.grafting.recut import recut
from hf_chain.grafting.trained_layers import carry_layers
from hf_chain.grafting.translator.fit import fit_translator
from hf_chain.grafting.translator.image_prompts import ImagePrompts
from hf_chain.grafting.translator.report import TranslatorReport
from hf_chain.hub import predecessor_revision
from hf_chain.methods.graft.context import GraftContext, load_target
from hf_chain.methods.graft.evaluation import ask
from hf_chain.methods.graft.headline import on_gpus
from hf_chain.methods.graft.lengths import stream_start
from hf_chain.methods.graft.recipe import GraftStageSettings
from hf_chain.methods.graft.report.examples import pictures_folder, save_pictures
from hf_chain.methods.graft.training import finished_model, train_parts, training_figures
from hf_chain.models.grafted_vlm import GraftedVLMForConditionalGeneration, GraftedVLMProcessor, from_parts
from hf_chain.runs.environment import wait_for_everyone
from hf_chain.runs.saved import saved_fields
from hf_chain.trainer.graft_trainer import GraftTrainer

logger = logging.get_logger(__name__)

SHOWN_ANSWERS = 20
"""Questions of each split that are saved with the model, answered."""


@dataclass
class VLMStage:
    """One stage of the recipe, or of its baseline.

    Args:
        context (`GraftContext`): what all stages share.
        settings (`GraftStageSettings`): what the recipe says of it.
        before (`GraftStageSettings`, *optional*): the stage it goes on from; without one a new adapter is made.
        encoder (`str`): folder or Hub name of the encoder.
    """

    context: GraftContext
    settings: GraftStageSettings
    before: GraftStageSettings | None
    encoder: str

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.settings.name

    def run(self) -> None:
        """Does what is left to do; the result is the same wherever an earlier attempt ended."""
        context, name = self.context, self.settings.name
        # Asked by all at one time: a slow process must not find done what the main one waits for the others with.
        wait_for_everyone()
        if context.is_saved(name):
            logger.warning(f"{name}: already in {context.folder(name)}")
            context.remove_checkpoints(name)
            return
        if not self.settings.parts and not context.main_process:
            # Nothing is trained together, and the next stage reads what one process leaves.
            wait_for_everyone()
            return
        model, processor = self._build()
        # Before the training, so that bad rows do not end the stage after it.
        asked = context.main_process and name in context.recipe.judged
        questions = context.conversations.questions(processor) if asked else {}
        context.note(
            "started",
            name,
            index=context.index(name),
            parent=self._origin(),
            operator="graft" if self._grafts else None,
            parameters=model.num_parameters(),
            epochs=self.settings.epochs if self.settings.parts else 0.0,
        )
        trainer = self._train(model, processor) if self.settings.parts else None
        refit = refit_translator(context, self.settings, model, processor) if self.settings.refit is not None else None
        if refit is not None:
            model = refit.model
        self._save(model if trainer is None else trainer.model, processor, trainer, refit, questions)
        wait_for_everyone()
        build_whole_again()
        del trainer, model
        gc.collect()

    def _origin(self) -> str:
        """The stage before, or the encoder: at its commit, which the main process asks for."""
        if self.before is not None:
            return self.before.name
        return predecessor_revision(self.encoder) if self.context.main_process else self.encoder

    @property
    def _grafts(self) -> bool:
        return self.before is not None and self.before.decoder != self.settings.decoder

    def _build(self) -> tuple[GraftedVLMForConditionalGeneration, GraftedVLMProcessor]:
        context, recipe = self.context, self.context.recipe
        kernel = recipe.target.attn_implementation
        if self.before is None:
            context.check_saved("target", "surrogate")
            if self.settings.decoder == "target":
                language_model, tokenizer = load_target(context)
            else:
                language_model = tokenizer = str(context.folder("surrogate"))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(recipe.seed)
                return from_parts(
                    self.encoder,
                    language_model,
                    tokenizer,
                    **recipe.model.model_dump(),
                    attn_implementation=kernel,
                )
        # What is trained, the trainer places.
        device_map = {} if self.settings.parts else on_gpus()
        context.check_saved("target", self.before.name)
        folder = context.folder(self.before.name)
        processor = GraftedVLMProcessor.from_pretrained(folder)
        if self._grafts:
            target, tokenizer = load_target(context, **device_map)
            return graft(folder, target, tokenizer=tokenizer), processor
        loading = device_map if kernel is None else device_map | {"attn_implementation": kernel}
        return GraftedVLMForConditionalGeneration.from_pretrained(folder, dtype="auto", **loading), processor

    def _train(self, model: PreTrainedModel, processor: GraftedVLMProcessor) -> GraftTrainer:
        context, settings, recipe = self.context, self.settings, self.context.recipe
        collator = context.conversations.collator(processor, settings)
        stages = recipe.stages if settings in recipe.stages else recipe.baseline
        length = context.conversations.stream_length(settings.data)
        skip = 0 if length is None else stream_start(stages, settings, length)
        return train_parts(
            model,
            settings.parts,
            context.conversations.training_rows(settings.data, collator, settings.share, skip),
            collator,
            processor,
            epochs=settings.epochs,
            tracked=context.tracked(settings.name),
            seed=recipe.seed + context.index(settings.name),
            checkpoints=context.checkpoints(settings.name),
            main_process=context.main_process,
            stream_length=length,
        )

    def _save(
        self,
        model: PreTrainedModel,
        processor: GraftedVLMProcessor,
        trainer: GraftTrainer | None,
        refit: TranslatorRefit | None,
        questions: dict[str, Dataset],
    ) -> None:
        context, name = self.context, self.settings.name
        if not context.main_process:
            if trainer is not None:
                # Writes nothing, but takes part in gathering sharded weights.
                trainer.save_model(str(context.folder(name)))
            return
        with whole_folder(context.folder(name)) as folder:
            if trainer is None:
                model.save_pretrained(folder)
            else:
                trainer.save_model(str(folder))
                model = finished_model(trainer, folder)
                context.note("trained", name, **training_figures(trainer))
                write_json(folder / "training_log.json", trainer.state.log_history)
                (folder / "training_args.bin").unlink(missing_ok=True)
            if refit is not None:
                context.note("trained", name, **refit.figures)
                write_json(folder / "translator.json", asdict(refit.report))
            processor.save_pretrained(folder)
            if questions:
                self._ask(model, processor, questions, folder)
            context.describe(name, folder)
        context.note("saved", name, **saved_fields(context.folder(name)))
        context.remove_checkpoints(name)

    def _ask(
        self,
        model: PreTrainedModel,
        processor: GraftedVLMProcessor,
        questions: dict[str, Dataset],
        folder: Path,
    ) -> None:
        found = ask(model, processor, questions, self.context.recipe.evaluation)
        self.context.note(
            "evaluated",
            self.settings.name,
            metrics_after={split: one.metrics for split, one in found.items()},
            evaluation_macs=sum(one.macs for one in found.values()),
        )
        shown = {split: [asdict(answer) for answer in one.answers[:SHOWN_ANSWERS]] for split, one in found.items()}
        write_json(folder / "answers.json", shown)
        self._keep_pictures(questions)

    def _keep_pictures(self, questions: dict[str, Dataset]) -> None:
        """Keeps the pictures of the shown answers for the report, once a run."""
        for split, rows in questions.items():
            folder = pictures_folder(self.context.recipe.run_dir, split)
            if not folder.exists() or first_difference(folder):
                asked = spread(rows, self.context.recipe.evaluation.max_samples)
                with whole_folder(folder) as unfinished:
                    save_pictures(unfinished, asked.select(range(min(SHOWN_ANSWERS, len(asked)))))


@dataclass(frozen=True)
class TranslatorRefit:
    """What came out of a refit, and what it took, as the ledger notes it."""

    model: GraftedVLMForConditionalGeneration
    report: TranslatorReport
    figures: dict[str, Any]


def refit_translator(
    context: GraftContext,
    settings: GraftStageSettings,
    model: GraftedVLMForConditionalGeneration,
    processor: GraftedVLMProcessor,
) -> TranslatorRefit:
    """Fits the translator of a model on a surrogate, in place, by least squares against the target.

    Where the stage names layers to replace, the model is first put onto a surrogate in which only those are. Layers
    that were trained on the surrogate are in the target too, as the graft will put them there.

    Args:
        context (`GraftContext`): what all stages share.
        settings (`GraftStageSettings`): a stage with `refit`.
        model (`GraftedVLMForConditionalGeneration`): the model, whose adapter has been trained.
        processor (`GraftedVLMProcessor`): its processor.

    Returns:
        `TranslatorRefit`: with the model, which is another one where the surrogate is.
    """
    start, recipe = time.perf_counter(), context.recipe
    collator = ChatCollator(
        processor, max_length=recipe.max_length, image_prompts=recipe.image_prompts, seed=recipe.seed
    )
    rows = context.conversations.prompts(settings.data, settings.refit or 0, collator)
    target, _ = load_target(context, **on_gpus())
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
    macs = report.macs + image_macs(model, prompts.images_embedded)
    figures = {
        "samples": len(rows),
        "parameters": model.num_parameters(),
        "operator": done,
        "training_macs": {"translator": macs, "total": macs},
        "seconds": round(time.perf_counter() - start, 1),
    }
    return TranslatorRefit(model, report, figures)
