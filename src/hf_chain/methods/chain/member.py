"""One member: build or grow, evaluate, train, evaluate, save."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from hf_chain.arguments.precision import uses_bfloat16
from hf_chain.cost import training_steps
from hf_chain.distillation.cache import cached_teacher, remove_damaged
from hf_chain.engine import build_whole_again
from hf_chain.evaluation import Evaluation
from hf_chain.files import whole_folder, write_json
from hf_chain.growth import grow, growth_error
from hf_chain.growth.shapes import EXACT_IN_WIDTH
from hf_chain.methods.chain.chain_recipe import ChainRecipe
from hf_chain.methods.chain.family_data import FamilyData
from hf_chain.methods.chain.report.outcomes import outcomes
from hf_chain.methods.chain.stopping import StopWhenReached, aim, check_metrics, outcome
from hf_chain.methods.context import RunContext
from hf_chain.runs.environment import check_engine
from hf_chain.runs.ledger import MemberRecord, read_family
from hf_chain.runs.saved import check_manifest, manifest_sha256, saved_fields
from hf_chain.runs.training_run import (
    TRAINING_DEFAULTS,
    logging_steps,
    train_or_resume,
)
from hf_chain.tasks import find_task
from hf_chain.tasks.paradigm import Paradigm
from hf_chain.trainer import ChainConfig, ChainTrainer
from hf_chain.trainer.inherited_state import NamedState
from hf_chain.trainer.trunk import is_trunk, read_state

logger = logging.get_logger(__name__)

CACHE_FOLDER = "teacher_features"


@dataclass
class MemberStage:
    """The stage that makes one member of a family out of its predecessor.

    Args:
        context (`RunContext`): what all members share.
        index (`int`): position of the member in the family.
        data (`FamilyData`): the data.
    """

    context: RunContext[ChainRecipe]
    index: int
    data: FamilyData

    _cache_macs: int = 0

    @property
    def recipe(self) -> ChainRecipe:
        """The recipe."""
        return self.context.recipe

    @property
    def paradigm(self) -> Paradigm:
        """What its task brings."""
        return self.recipe.paradigm

    @property
    def member(self) -> Any:
        """What the recipe says about the member."""
        return self.recipe.members[self.index]

    @property
    def name(self) -> str:
        """Name of the member."""
        return self.member.name

    @property
    def folder(self) -> Path:
        """Where the finished member is."""
        return self.context.folder(self.name)

    @property
    def record(self) -> MemberRecord:
        """What the ledger knows of the member."""
        return self.context.record(self.name)

    def run(self) -> None:
        """Does what is left to do; the result is the same wherever an earlier attempt ended."""
        if self.context.is_saved(self.name):
            logger.warning(f"{self.name}: already in {self.folder}")
            self.context.remove_checkpoints(self.name)
            return
        self._note_start()
        model, state = self._build()
        self._evaluate_before(model)
        self._aim()
        # Wrapped before the engine starts: ZeRO-3 would build it in pieces.
        teacher = self._predecessor() if self.recipe.is_taught(self.member) else None
        wrapped = self.paradigm.wrap(model, teacher)
        with self.context.tracked(self.name).told():
            trainer = self._trainer(wrapped, teacher, state)
            self._stop_when_reached(trainer, model)
            train_or_resume(trainer, self.context.main_process)
        self._save(trainer)
        trainer.accelerator.wait_for_everyone()
        build_whole_again()
        del trainer
        gc.collect()

    def _note_start(self) -> None:
        config = self.config()
        parameters, macs = self.paradigm.counts(config)
        self.context.note(
            "started",
            self.name,
            index=self.index,
            parent=self._parent_name,
            operator=self._operator,
            seed=self.recipe.seed + self.index,
            config_hash=hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:16],
            parameters=parameters,
            macs_per_sample=macs,
            # Fewer where it has been trained and stopped.
            epochs=self.record.epochs or self.member.epochs if self.context.main_process else 0.0,
        )

    # Build

    @property
    def _operator(self) -> str | None:
        return self.recipe.operator_of(self.member)

    @property
    def _parent_name(self) -> str | None:
        parent = self.recipe.parent_of(self.member)
        return parent.name if parent is not None else self.recipe.published if self._operator else None

    def config(self) -> PreTrainedConfig:
        """Configuration of the member, with the special tokens of the run's tokenizer."""
        return self.paradigm.config(self.member, self.data)

    def _build(self) -> tuple[PreTrainedModel, NamedState | None]:
        """The member as it enters training, and the optimizer's state that grew along; the same in every process."""
        config, seed = self.config(), self.recipe.seed + self.index
        if self._operator is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return self.paradigm.new(config), None
        trunk = self._trunk_before()
        predecessor = self._predecessor() if trunk is None else self.paradigm.load(str(trunk), config)
        state = read_state(trunk) if trunk is not None and self._inherits_state else None
        grown: Any = grow(predecessor, config, self._operator, seed, **({"optimizer_state": state} if state else {}))
        model, state = grown if state else (grown, None)
        if self.context.main_process and not self.record.growth_error:
            self.context.note("grown", self.name, growth_error=growth_error(predecessor, model))
        return model, state and state["state"]

    def _predecessor(self) -> PreTrainedModel:
        """As it was delivered."""
        before = self._parent_name or ""
        self.context.check_saved(before)
        inside = self.recipe.parent_of(self.member) is not None
        return self.paradigm.load(str(self.context.folder(before) if inside else before), self.config())

    def _trunk_before(self) -> Path | None:
        """The trunk of the predecessor, where it has one; a published one may be the trunk of another run."""
        parent = self.recipe.parent_of(self.member)
        if parent is None and is_trunk(Path(self._parent_name or "")):
            return Path(self._parent_name or "")
        if parent is None or self.recipe.training_of(parent).get("trunk_decay") is None:
            return None
        folder = self.context.trunk(parent.name)
        if self.context.main_process:
            check_manifest(
                folder, self.context.record(parent.name).trunk["manifest_sha256"], f"trunk of {parent.name}"
            )
        return folder

    @property
    def _inherits_state(self) -> bool:
        return self.recipe.optimizer_state and self._operator in EXACT_IN_WIDTH

    def _evaluate_before(self, model: PreTrainedModel) -> None:
        if self.context.main_process and not self.record.metrics_before:
            evaluations = self._evaluate(model, trained=self._operator not in (None, "random"))
            metrics = {name: evaluation.metrics for name, evaluation in evaluations.items()}
            macs = sum(evaluation.macs for evaluation in evaluations.values()) + self.record.until_macs
            self.context.note("evaluated_before", self.name, metrics_before=metrics, evaluation_macs=macs)

    # Train

    def _aim(self) -> None:
        """Records what it is trained for, once: what that is compared with may change."""
        if not self.context.main_process:
            return
        check_metrics(self.recipe, self.record.metrics_before)
        if self.recipe.until_of(self.member) is not None and not self.record.until:
            until = aim(self.recipe, self.member, read_family(self.recipe.run_dir))
            self.context.note("aimed", self.name, until=until)

    def _stop_when_reached(self, trainer: ChainTrainer, model: PreTrainedModel) -> None:
        if (until := self.recipe.until_of(self.member)) is None:
            return
        rows, options = self.data.evaluation[until.split], self._evaluation_options()
        if until.max_samples is not None:
            options["max_samples"] = until.max_samples
        callback = StopWhenReached(
            trainer,
            until,
            lambda: self.paradigm.evaluate(model, self.data.processor, rows, **options),
            lambda: self.record,
            partial(self.context.ledger.append, member=self.name) if self.context.main_process else None,
            self._cache_macs,
        )
        trainer.add_callback(callback)

    def _trainer(
        self, model: PreTrainedModel, teacher: PreTrainedModel | None, state: NamedState | None
    ) -> ChainTrainer:
        tracked = self.context.tracked(self.name).fields
        args = ChainConfig(
            output_dir=str(self.context.checkpoints(self.name)),
            num_train_epochs=self.member.epochs,
            seed=self.recipe.seed + self.index,
            use_cpu=not torch.cuda.is_available(),
            **TRAINING_DEFAULTS | {"task": self.recipe.task} | tracked,
        )
        streamed = self.recipe.data.streaming
        batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        steps = training_steps(self.member.epochs, self.data.samples_per_epoch, batch, streamed)
        if "logging_steps" not in tracked:
            args.logging_steps = logging_steps(steps)
        if streamed:
            args.max_steps = steps
            # Every process reads its lanes of the stream and takes its slices, and they see what one would.
            args.accelerator_config.dispatch_batches = False
        source: Any = teacher
        if teacher is not None and self.recipe.cache_teacher_features:
            folder = self.recipe.run_dir / CACHE_FOLDER
            with args.main_process_first(local=False):
                if self.context.main_process:
                    remove_damaged(folder)
            source = cached_teacher(
                find_task(args.task)(args).teacher(teacher, model),
                self.data.train,
                self.data.collator,
                folder,
                args.per_device_train_batch_size,
                args.device,
                bool(args.bf16),
                check=False,
                workers=args.dataloader_num_workers,
                rank=args.process_index,
                processes=args.world_size,
            )
            self._cache_macs = source.macs
        trainer = ChainTrainer(
            model,
            args,
            source,
            state,
            train_dataset=self.data.train,
            data_collator=self.data.collator,
            processing_class=self.data.processor,
        )
        check_engine(args.world_size, args.n_gpu, trainer.engine.is_deepspeed)
        if trainer.trunk is not None:
            trainer.trunk.folder = self.context.trunk(self.name)
        return trainer

    # Save

    def _save(self, trainer: ChainTrainer) -> None:
        """Writes the member's folder, evaluated and with its card, and gives it its name when it is whole."""
        if not self.context.main_process:
            # Writes nothing, but takes part in gathering sharded weights.
            trainer.save_model(str(self.folder))
            return
        with whole_folder(self.folder) as folder:
            trainer.save_model(str(folder))
            build_whole_again()
            if not self.record.training_macs:
                self.context.note("trained", self.name, **self._training_figures(trainer))
                for sentence in outcomes([self.record]):
                    logger.warning(sentence)
            model: Any = self.paradigm.load(str(folder), self.config())
            evaluations = self._evaluate(model.to(trainer.args.device))
            # A restart between here and the end comes to the same result, which is recorded once.
            if not self.record.metrics_after:
                metrics = {name: evaluation.metrics for name, evaluation in evaluations.items()}
                macs = self.record.evaluation_macs + sum(evaluation.macs for evaluation in evaluations.values())
                chance = {name: evaluation.chance for name, evaluation in evaluations.items()}
                trials = {name: evaluation.trials for name, evaluation in evaluations.items()}
                known = {"metrics_chance": chance, "metrics_trials": trials}
                self.context.note("evaluated", self.name, metrics_after=metrics, evaluation_macs=macs, **known)
            write_json(folder / "evaluation.json", {name: vars(e) for name, e in evaluations.items()})
            write_json(folder / "training_log.json", trainer.state.log_history)
            for leftover in self.paradigm.leftovers():
                (folder / leftover).unlink(missing_ok=True)
            self.context.describe(self.name, folder)
        self.context.note("saved", self.name, **saved_fields(self.folder))
        if trainer.trunk is not None:
            shutil.rmtree(trainer.trunk.states, ignore_errors=True)
        self.context.remove_checkpoints(self.name)

    def _training_figures(self, trainer: ChainTrainer) -> dict[str, Any]:
        """Samples, MACs and seconds of the whole training, attempts before a restart included."""
        steps, unit = trainer.state.global_step, f"{trainer.task.unit}_per_second"
        # Shares of a training are those of all steps that it might have had.
        cap = trainer.state.max_steps
        units, cost = trainer.task.units(trainer.train_dataset), trainer.step_cost(cap)
        teacher = cost.teacher_macs(steps) + self._cache_macs
        student = cost.student_macs(steps)
        seconds, before = 0.0, 0
        for entry in trainer.state.log_history:
            if unit in entry:
                seconds += (entry["step"] - before) * cost.samples_per_step * units / entry[unit]
                before = entry["step"]
            elif "train_runtime" in entry and not before:
                seconds, before = entry["train_runtime"], steps
        # The steps after the last log entry went at the same speed.
        seconds *= steps / max(1, before)
        trunk = {}
        if trainer.trunk is not None and trainer.trunk.rate is not None:
            grown_from = trainer.trunk.rate.trunk
            trunk = {
                "steps": grown_from,
                "samples": grown_from * cost.samples_per_step,
                "training_macs": cost.total_macs(grown_from) + self._cache_macs,
                "manifest_sha256": manifest_sha256(trainer.trunk.folder),
            }
        until, stopped = self.recipe.until_of(self.member), {}
        if until is not None:
            stopped = outcome(self.record, until, steps, cap)
        return {
            "epochs": self.member.epochs if steps == cap else round(self.member.epochs * steps / cap, 4),
            "stopped": stopped,
            "samples": steps * cost.samples_per_step,
            "training_macs": {"student": student, "teacher": teacher, "total": student + teacher},
            "trunk": trunk,
            "seconds": round(seconds, 1),
            unit: round(steps * cost.samples_per_step * units / seconds, 1) if seconds else 0.0,
        }

    # Evaluate and record

    def _evaluation_options(self, trained: bool = True) -> dict[str, Any]:
        bf16 = uses_bfloat16(self.recipe.training_of(self.member).get("bf16", False))
        return self.data.evaluation_options | {"trained": trained, "bf16": bf16}

    def _evaluate(self, model: PreTrainedModel, trained: bool = True) -> dict[str, Evaluation]:
        options = self._evaluation_options(trained)
        return {
            name: self.paradigm.evaluate(model, self.data.processor, split, **options)
            for name, split in self.data.evaluation.items()
        }
