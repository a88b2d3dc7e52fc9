"""The target: a language model that exists, or a small one that is trained here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from hf_chain.data.chat.collator import ChatCollator
from hf_chain.files import weights_sha256, whole_folder, write_json
from hf_chain.stages.graft.asking import ask
from hf_chain.stages.graft.new_target import new_target_config, new_tokenizer
from hf_chain.stages.graft.parts_of_recipe import NewTargetSettings
from hf_chain.stages.graft.training import finished_model, train_parts, training_figures
from hf_chain.stages.graft.workplace import Workplace

NAME = "target"


@dataclass
class TargetStage:
    """Trains the small language model of recipes that bring none.

    It stands for a model that others have trained and published: what it took is noted, and is no part of the cost of
    the graft.
    """

    place: Workplace
    settings: NewTargetSettings

    def run(self) -> None:
        """Trains the model, or what is left of that, and saves it as a stock folder."""
        place, settings = self.place, self.settings
        if place.is_saved(NAME):
            place.remove_checkpoints(NAME)
            return
        recipe, folder = place.recipe, place.folder(NAME)
        conversations = place.conversations
        tokenizer = new_tokenizer(settings, conversations)
        model = self._model(tokenizer)
        place.note("started", NAME, index=place.stage_names.index(NAME), parameters=model.num_parameters())
        collator = ChatCollator(tokenizer)
        # Before the training, so that bad rows do not end the stage after it.
        questions = conversations.described(settings.data[0], collator) if place.main_process else None
        trainer = train_parts(
            model,
            {"decoder": None},
            conversations.training_rows(settings.data, collator),
            collator,
            tokenizer,
            epochs=settings.epochs,
            training=settings.training,
            seed=recipe.seed,
            checkpoints=place.checkpoints(NAME),
            stage=NAME,
            main_process=place.main_process,
        )
        if questions is None:
            trainer.save_model(str(folder))
            unset_hf_deepspeed_config()
            return
        with whole_folder(folder) as unfinished:
            trainer.save_model(str(unfinished))
            place.note("trained", NAME, **training_figures(trainer), epochs=settings.epochs)
            model = finished_model(trainer, unfinished)
            found = ask(model, tokenizer, {"described": questions}, recipe.evaluation)["described"]
            place.note("evaluated", NAME, metrics_after={"described": found.metrics}, evaluation_macs=found.macs)
            write_json(unfinished / "training_log.json", trainer.state.log_history)
            (unfinished / "training_args.bin").unlink(missing_ok=True)
            place.describe(NAME, unfinished)
        place.note("saved", NAME, folder=folder.name, weights_sha256=weights_sha256(folder))
        place.remove_checkpoints(NAME)

    def _model(self, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
        marks = ("bos_token_id", "eos_token_id", "pad_token_id")
        config = new_target_config(self.settings, len(tokenizer), **{mark: getattr(tokenizer, mark) for mark in marks})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.place.recipe.seed)
            return LlamaForCausalLM._from_config(
                config, attn_implementation=self.place.recipe.target.attn_implementation
            )
