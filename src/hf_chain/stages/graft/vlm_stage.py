"""A stage with a vision-language model: joined or grafted, trained in parts or not at all, asked and saved."""

from __future__ import annotations

import gc
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import PreTrainedModel
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.utils import logging

from hf_chain.evaluation.question_answering import spread
from hf_chain.files import weights_sha256, whole_folder, write_json
from hf_chain.grafting.graft import graft
from hf_chain.hub import predecessor_revision
from hf_chain.models.grafted_vlm import GraftedVLMForConditionalGeneration, GraftedVLMProcessor, from_parts
from hf_chain.report.graft_examples import pictures_folder, save_pictures
from hf_chain.stages.environment import wait_for_everyone
from hf_chain.stages.graft.asking import ask
from hf_chain.stages.graft.grafted import on_gpus
from hf_chain.stages.graft.lengths import stream_start
from hf_chain.stages.graft.loaded_target import load_target
from hf_chain.stages.graft.recipe import GraftStageSettings
from hf_chain.stages.graft.refit import TranslatorRefit, refit_translator
from hf_chain.stages.graft.training import finished_model, train_parts, training_figures
from hf_chain.stages.graft.workplace import Workplace
from hf_chain.trainer.graft_trainer import GraftTrainer

logger = logging.get_logger(__name__)

SHOWN_ANSWERS = 20
"""Questions of each split that are saved with the model, answered."""


@dataclass
class VLMStage:
    """One stage of the recipe, or of its baseline.

    Args:
        place (`Workplace`): what all stages share.
        settings (`GraftStageSettings`): what the recipe says of it.
        before (`GraftStageSettings`, *optional*): the stage it goes on from; without one a new adapter is made.
        encoder (`str`): folder or Hub name of the encoder.
    """

    place: Workplace
    settings: GraftStageSettings
    before: GraftStageSettings | None
    encoder: str

    def run(self) -> None:
        """Does what is left to do; the result is the same wherever an earlier attempt ended."""
        place, name = self.place, self.settings.name
        # Asked by all at one time: a slow process must not find done what the main one waits for the others with.
        wait_for_everyone()
        if place.is_saved(name):
            logger.warning(f"{name}: already in {place.folder(name)}")
            place.remove_checkpoints(name)
            return
        if not self.settings.parts and not place.main_process:
            # Nothing is trained together, and the next stage reads what one process leaves.
            wait_for_everyone()
            return
        model, processor = self._build()
        # Before the training, so that bad rows do not end the stage after it.
        asked = place.main_process and name in place.recipe.judged
        questions = place.conversations.questions(processor) if asked else {}
        place.note(
            "started",
            name,
            index=place.stage_names.index(name),
            parent=self._origin(),
            operator="graft" if self._grafts else None,
            parameters=model.num_parameters(),
            epochs=self.settings.epochs if self.settings.parts else 0.0,
        )
        trainer = self._train(model, processor) if self.settings.parts else None
        refit = refit_translator(place, self.settings, model, processor) if self.settings.refit is not None else None
        if refit is not None:
            model = refit.model
        self._save(model if trainer is None else trainer.model, processor, trainer, refit, questions)
        wait_for_everyone()
        # Later models are built whole, not sharded by an engine that is no longer there.
        unset_hf_deepspeed_config()
        del trainer, model
        gc.collect()

    def _origin(self) -> str:
        """The stage before, or the encoder: at its commit, which the main process asks for."""
        if self.before is not None:
            return self.before.name
        return predecessor_revision(self.encoder) if self.place.main_process else self.encoder

    @property
    def _grafts(self) -> bool:
        return self.before is not None and self.before.decoder != self.settings.decoder

    def _build(self) -> tuple[GraftedVLMForConditionalGeneration, GraftedVLMProcessor]:
        place, recipe = self.place, self.place.recipe
        kernel = recipe.target.attn_implementation
        if self.before is None:
            on_target, decoder = self.settings.decoder == "target", str(place.folder("surrogate"))
            language_model, tokenizer = load_target(place) if on_target else (decoder, decoder)
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
        places = {} if self.settings.parts else on_gpus()
        folder = place.folder(self.before.name)
        processor = GraftedVLMProcessor.from_pretrained(folder)
        if self._grafts:
            target, tokenizer = load_target(place, **places)
            return graft(folder, target, tokenizer=tokenizer), processor
        loading = places if kernel is None else places | {"attn_implementation": kernel}
        return GraftedVLMForConditionalGeneration.from_pretrained(folder, dtype="auto", **loading), processor

    def _train(self, model: PreTrainedModel, processor: GraftedVLMProcessor) -> GraftTrainer:
        place, settings, recipe = self.place, self.settings, self.place.recipe
        collator = place.conversations.collator(processor, settings)
        stages = recipe.stages if settings in recipe.stages else recipe.baseline
        length = place.conversations.stream_length(settings.data)
        skip = 0 if length is None else stream_start(stages, settings, length)
        return train_parts(
            model,
            settings.parts,
            place.conversations.training_rows(settings.data, collator, settings.share, skip),
            collator,
            processor,
            epochs=settings.epochs,
            training=recipe.training_of(settings),
            seed=recipe.seed + place.stage_names.index(settings.name),
            checkpoints=place.checkpoints(settings.name),
            stage=settings.name,
            main_process=place.main_process,
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
        place, name = self.place, self.settings.name
        if not place.main_process:
            if trainer is not None:
                # Writes nothing, but takes part in gathering sharded weights.
                trainer.save_model(str(place.folder(name)))
            return
        with whole_folder(place.folder(name)) as folder:
            if trainer is None:
                model.save_pretrained(folder)
            else:
                trainer.save_model(str(folder))
                model = finished_model(trainer, folder)
                place.note("trained", name, **training_figures(trainer))
                write_json(folder / "training_log.json", trainer.state.log_history)
                (folder / "training_args.bin").unlink(missing_ok=True)
            if refit is not None:
                place.note("trained", name, **refit.figures)
                write_json(folder / "translator.json", asdict(refit.report))
            processor.save_pretrained(folder)
            if questions:
                self._ask(model, processor, questions, folder)
            place.describe(name, folder)
        place.note("saved", name, folder=place.folder(name).name, weights_sha256=weights_sha256(place.folder(name)))
        place.remove_checkpoints(name)

    def _ask(
        self,
        model: PreTrainedModel,
        processor: GraftedVLMProcessor,
        questions: dict[str, Dataset],
        folder: Path,
    ) -> None:
        found = ask(model, processor, questions, self.place.recipe.evaluation)
        self.place.note(
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
            folder = pictures_folder(self.place.recipe.run_dir, split)
            if not folder.exists():
                asked = spread(rows, self.place.recipe.evaluation.max_samples)
                with whole_folder(folder) as unfinished:
                    save_pictures(unfinished, asked.select(range(min(SHOWN_ANSWERS, len(asked)))))
