"""The target: a language model that exists, or a small one that is trained here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from hf_chain.data.chat.collator import ChatCollator
from hf_chain.engine import build_whole_again
from hf_chain.files import whole_folder, write_json
from hf_chain.methods.graft.context import GraftContext
from hf_chain.methods.graft.evaluation import ask
from hf_chain.methods.graft.meta_models import new_target_config, new_tokenizer
from hf_chain.methods.graft.parts_of_recipe import NewTargetSettings
from hf_chain.methods.graft.training import finished_model, train_parts, training_figures
from hf_chain.runs.saved import saved_fields

NAME = "target"


@dataclass
class TargetStage:
    """Trains the small language model of recipes that bring none.

    It stands for a model that others have trained and published: what it took is noted, and is no part of the cost of
    the graft.
    """

    context: GraftContext
    settings: NewTargetSettings

    name = NAME

    def run(self) -> None:
        """Trains the model, or what is left of that, and saves it as a stock folder."""
        context, settings = self.context, self.settings
        if context.is_saved(NAME):
            context.remove_checkpoints(NAME)
            return
        recipe, folder = context.recipe, context.folder(NAME)
        conversations = context.conversations
        tokenizer = new_tokenizer(settings, conversations)
        model = self._model(tokenizer)
        context.note("started", NAME, index=context.index(NAME), parameters=model.num_parameters())
        collator = ChatCollator(tokenizer)
        # Before the training, so that bad rows do not end the stage after it.
        questions = conversations.described(settings.data[0], collator) if context.main_process else None
        trainer = train_parts(
            model,
            {"decoder": None},
            conversations.training_rows(settings.data, collator),
            collator,
            tokenizer,
            epochs=settings.epochs,
            tracked=context.tracked(NAME),
            seed=recipe.seed,
            checkpoints=context.checkpoints(NAME),
            main_process=context.main_process,
        )
        if questions is None:
            trainer.save_model(str(folder))
            build_whole_again()
            return
        with whole_folder(folder) as unfinished:
            trainer.save_model(str(unfinished))
            context.note("trained", NAME, **training_figures(trainer), epochs=settings.epochs)
            model = finished_model(trainer, unfinished)
            found = ask(model, tokenizer, {"described": questions}, recipe.evaluation)["described"]
            context.note("evaluated", NAME, metrics_after={"described": found.metrics}, evaluation_macs=found.macs)
            write_json(unfinished / "training_log.json", trainer.state.log_history)
            (unfinished / "training_args.bin").unlink(missing_ok=True)
            context.describe(NAME, unfinished)
        context.note("saved", NAME, **saved_fields(context.folder(NAME)))
        context.remove_checkpoints(NAME)

    def _model(self, tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
        marks = ("bos_token_id", "eos_token_id", "pad_token_id")
        config = new_target_config(self.settings, len(tokenizer), **{mark: getattr(tokenizer, mark) for mark in marks})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.context.recipe.seed)
            return LlamaForCausalLM._from_config(
                config, attn_implementation=self.context.recipe.target.attn_implementation
            )
