"""Training translators by gradients, with everything else of the surrogate frozen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import Trainer

from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import num_layers
from hf_chain.grafting.translator.cost import forward_macs, step_macs
from hf_chain.grafting.translator.objectives import hidden_loss, lm_loss, logits_loss
from hf_chain.grafting.translator.splice import splices, translator_modules
from hf_chain.grafting.translator.translator_config import TranslatorConfig
from hf_chain.grafting.translator.truncated import Batch, real_tokens, replaced_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TranslatorTraining:
    """What training did.

    Attributes:
        objective (`str`): what it was for.
        steps (`int`): optimiser steps.
        loss_before (`float`): mean loss over the first tenth of the batches.
        loss_after (`float`): and over the last.
        tokens (`int`): tokens trained on, without padding, of all epochs and processes.
        macs (`int`): multiply-accumulate operations of surrogate and target, likewise.
    """

    objective: str
    steps: int
    loss_before: float
    loss_after: float
    tokens: int
    macs: int


class TranslatorTrainer(Trainer):
    """Trains the translators of a surrogate; whatever works with [`~transformers.Trainer`] works here.

    Dropout stays off, as the target is run without. The target stays on the device it is on.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage; parameters that need no gradient are frozen.
        target (`PreTrainedModel`): what it was cut from.
        args (`TranslatorConfig`): the arguments.
        batches (`Sequence[Batch]`): the text.
        kwargs: as for `Trainer`: `callbacks`, `optimizers`, …
    """

    args: TranslatorConfig

    def __init__(
        self,
        surrogate: PreTrainedModel,
        target: PreTrainedModel,
        args: TranslatorConfig,
        batches: Sequence[Batch],
        **kwargs: Any,
    ) -> None:
        super().__init__(model=surrogate, args=args, train_dataset=batches, data_collator=_only_one, **kwargs)
        # Every loss is a mean over one batch: the Trainer has to divide by the number of accumulated ones.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = False
        self.target = target.eval()
        self.splices = splices(surrogate)
        self.losses: list[torch.Tensor] = []
        self.tokens = self.macs = 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The objective on one batch."""
        model.eval()
        surrogate: PreTrainedModel = self.accelerator.unwrap_model(model)
        if self.args.objective == "hidden":
            loss = hidden_loss(surrogate, model, self.target, self.splices, inputs)
        elif self.args.objective == "logits":
            loss = logits_loss(surrogate, model, self.target, inputs)
        else:
            loss = lm_loss(surrogate, model, inputs)
        self.losses.append(loss.detach())
        self.tokens += int(real_tokens(inputs).sum())
        self.macs += self._batch_macs(surrogate, inputs)
        return (loss, None) if return_outputs else loss

    def result(self) -> TranslatorTraining:
        """What was done so far, on all processes.

        Raises:
            HfChainError: when a loss was not finite.
        """
        losses = torch.stack(self.losses).float()
        broken = (~losses.isfinite()).nonzero()
        if len(broken):
            raise HfChainError(
                f"the {self.args.objective} loss is {losses[broken[0, 0]].item()} after {broken[0, 0].item()} batches:"
                f" lower learning_rate={self.args.learning_rate:g}, and begin again with method 'inherit'"
            )
        tenth = max(1, len(losses) // 10)
        ends = self.accelerator.reduce(torch.stack([losses[:tenth].mean(), losses[-tenth:].mean()]), "mean")
        counts = self.accelerator.reduce(torch.tensor([self.tokens, self.macs], device=losses.device), "sum")
        return TranslatorTraining(self.args.objective, self.state.global_step, *ends.tolist(), *counts.tolist())

    def _batch_macs(self, surrogate: PreTrainedModel, batch: Batch) -> int:
        trained = [layer for splice in self.splices for layer in splice.translators]
        last = self.splices[-1]
        if self.args.objective == "hidden":
            layers, head = range(last.surrogate_layer + 1), False
            target = forward_macs(self.target, batch, range(last.target_layer + 1))
        else:
            layers, head = range(num_layers(surrogate.config)), True
            target = forward_macs(self.target, batch, head=True) if self.args.objective == "logits" else 0
        return target + step_macs(surrogate, batch, layers, trained, head)


def train(
    surrogate: PreTrainedModel, target: PreTrainedModel, batches: Iterable[Batch], args: TranslatorConfig
) -> TranslatorTraining:
    """Trains the translator layers, all their weights and nothing else, in place.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage. In half precision its translators are trained in
            float32, which needs `bf16` or `fp16` in the arguments, and rounded at the end.
        target (`PreTrainedModel`): what it was cut from.
        batches (`Iterable[Batch]`): text; its token ids are kept in memory.
        args (`TranslatorConfig`): the arguments.

    Raises:
        HfChainError: when there is no batch, the precision does not fit, or the loss stops being finite.
    """
    samples = list(batches)
    if not samples:
        raise HfChainError("there is no text to train the translator on: give at least one batch")
    half = surrogate.dtype in (torch.bfloat16, torch.float16)
    if half and not (args.bf16 or args.fp16):
        raise HfChainError(
            f"the surrogate is in {surrogate.dtype}, whose steps are too coarse for training: set bf16=True in"
            " TranslatorConfig, which keeps the trained weights in float32"
        )
    # Mixed precision replaces the model's forward.
    with _trainable(surrogate), replaced_forward(surrogate, surrogate.forward):
        trainer = TranslatorTrainer(surrogate, target, args, samples)
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
        return trainer.result()


@contextmanager
def _trainable(surrogate: PreTrainedModel) -> Iterator[None]:
    """Lets the translators alone be trained, in float32 at least; the rest is as before afterwards."""
    dtype, flags = surrogate.dtype, [(weight, weight.requires_grad) for weight in surrogate.parameters()]
    translators, training = translator_modules(surrogate), surrogate.training
    surrogate.requires_grad_(False)
    for module in translators:
        module.requires_grad_(True)
        if dtype in (torch.bfloat16, torch.float16):
            module.float()
    try:
        yield
    finally:
        for module in translators:
            module.to(dtype)
        for weight, needed in flags:
            weight.requires_grad_(needed)
            weight.grad = None
        surrogate.train(training)


def _only_one(samples: list[Batch]) -> Batch:
    """A sample of the Trainer is a batch of text already."""
    return samples[0]
