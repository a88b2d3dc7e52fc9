"""Training translators by gradients, with everything else of the surrogate frozen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import Trainer

from hf_chain.arguments.trainer_arguments import check_arguments, check_optimizers
from hf_chain.errors import HfChainError
from hf_chain.grafting.anatomy import decoder_layers, num_layers
from hf_chain.grafting.batches import Batch, batch_shape, check_batches, forward_inputs, real_tokens
from hf_chain.grafting.translator.image_prompts import ImagePrompts
from hf_chain.grafting.translator.objectives import counted_tokens, gradients_loss, hidden_loss, lm_loss, logits_loss
from hf_chain.grafting.translator.splice_error import splices, translator_modules
from hf_chain.grafting.translator.splice_runs import forward_macs, gradients_macs, step_macs
from hf_chain.grafting.translator.translator_config import TranslatorConfig
from hf_chain.grafting.translator.truncated import replaced_forward
from hf_chain.master_weights import trained_in_float32

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TranslatorTraining:
    """What training did.

    Attributes:
        objective (`str`): what it was for.
        steps (`int`): optimiser steps.
        loss_before (`float`, *optional*): mean loss over the first tenth of the batches, since a training that was
            resumed went on; `None` where nothing was left to do.
        loss_after (`float`, *optional*): and over the last.
        tokens (`int`): tokens trained on, without padding, of all epochs and processes.
        macs (`int`): multiply-accumulate operations of surrogate and target, likewise.
    """

    objective: str
    steps: int
    loss_before: float | None
    loss_after: float | None
    tokens: int
    macs: int


class TranslatorTrainer(Trainer):
    """Trains the translators of a surrogate; whatever works with [`~transformers.Trainer`] works here.

    The loss is the mean over all tokens of an optimiser step, in all processes. Dropout stays off, as the target is
    run without. The target stays on the device it is on.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage; parameters that need no gradient are frozen.
        target (`PreTrainedModel`): what it was cut from.
        args (`TranslatorConfig`): the arguments.
        batches (`Sequence[Batch]` or `ImagePrompts`): the text.
        kwargs: as for `Trainer`: `callbacks`, `optimizers`, …

    Raises:
        HfChainError: for an argument that would do nothing, and an optimizer that would not train the surrogate.
    """

    args: TranslatorConfig

    def __init__(
        self,
        surrogate: PreTrainedModel,
        target: PreTrainedModel,
        args: TranslatorConfig,
        batches: Sequence[Batch] | ImagePrompts,
        **kwargs: Any,
    ) -> None:
        check_arguments(type(self), surrogate, args, TranslatorConfig, kwargs)
        check_optimizers(kwargs.get("optimizers"), surrogate)
        super().__init__(model=surrogate, args=args, train_dataset=batches, data_collator=_only_one, **kwargs)
        # `compute_loss` divides by the tokens of the whole accumulated batch, so the model shall not, nor the Trainer.
        self.model_accepts_loss_kwargs = False
        self.loss_is_scaled_for_ga = True
        self.target = target.eval()
        self.splices = splices(surrogate)
        self.losses: list[torch.Tensor] = []

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor | None]:
        """The batches of an optimiser step, and over how many tokens in all processes its loss is the mean."""
        batches = list(islice(epoch_iterator, num_batches))
        if not batches:
            return batches, None
        counts = [
            torch.stack([counted_tokens(self.args.objective, batch).to(device), real_tokens(batch).sum().to(device)])
            for batch in batches
        ]
        counted, tokens = self.accelerator.reduce(torch.stack(counts).sum(0), "sum")
        # A field of checkpoints that the Trainer fills itself only when it is asked to.
        if self.args.include_num_input_tokens_seen == "no":
            self.state.num_input_tokens_seen += int(tokens)
        return batches, counted.clamp(min=1)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The objective on one batch; in training its share of the mean over the whole step."""
        surrogate: PreTrainedModel = self.accelerator.unwrap_model(model)
        _set_modes(surrogate, model, self._checkpointed)
        if self.args.objective == "hidden":
            total = hidden_loss(surrogate, model, self.target, self.splices, inputs)
        elif self.args.objective == "gradients":
            total = gradients_loss(surrogate, model, self.target, self.splices, inputs)
        elif self.args.objective == "logits":
            total = logits_loss(surrogate, model, self.target, inputs)
        else:
            total = lm_loss(surrogate, model, inputs)
        counted = counted_tokens(self.args.objective, inputs).to(total.device)
        mean = total / counted.clamp(min=1)
        if num_items_in_batch is None:
            return (mean, None) if return_outputs else mean
        if counted:
            self.losses.append(mean.detach())
        # Engines average gradients over processes.
        loss = total / num_items_in_batch * self.args.world_size
        return (loss, None) if return_outputs else loss

    def prediction_step(
        self, model: nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[torch.Tensor | None, None, None]:
        """The objective on a batch of the evaluation text, with or without labels."""
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._prepare_inputs(inputs)), None, None

    def floating_point_ops(self, inputs: Batch) -> int:
        """Operations of a training step on this batch; the Trainer sums them up and keeps them in checkpoints."""
        return 2 * self._batch_macs(self.accelerator.unwrap_model(self.model), inputs)

    def result(self) -> TranslatorTraining:
        """What was done so far, on all processes, before a training was resumed too.

        Returns:
            `TranslatorTraining`: counts of the whole training.

        Raises:
            HfChainError: when a loss was not finite.
        """
        losses = torch.stack(self.losses).float() if self.losses else torch.empty(0, device=self.args.device)
        broken = (~losses.isfinite()).nonzero()
        if len(broken):
            raise HfChainError(
                f"the {self.args.objective} loss is {losses[broken[0, 0]].item()} after {broken[0, 0].item()} batches:"
                f" lower learning_rate={self.args.learning_rate:g}, and begin again with method 'inherit'"
            )
        before, after = self._ends(losses)
        return TranslatorTraining(
            objective=self.args.objective,
            steps=self.state.global_step,
            loss_before=before,
            loss_after=after,
            tokens=int(self.state.num_input_tokens_seen),
            macs=round(self.state.total_flos / 2),
        )

    def _ends(self, losses: torch.Tensor) -> tuple[float | None, float | None]:
        """Mean losses at the beginning and at the end, over the processes that saw a token."""
        tenth = max(1, len(losses) // 10)
        ends = [losses[:tenth].mean(), losses[-tenth:].mean()] if len(losses) else [losses.sum(), losses.sum()]
        seen = torch.stack([*ends, torch.ones_like(ends[0]) * bool(len(losses))])
        before, after, processes = self.accelerator.reduce(seen, "sum").tolist()
        return (before / processes, after / processes) if processes else (None, None)

    @property
    def _checkpointed(self) -> int:
        """How many of the first layers may be run twice; `hidden` leaves the last one that it runs half-way."""
        return self.splices[-1].surrogate_layer if self.args.objective == "hidden" else num_layers(self.model.config)

    def _batch_macs(self, surrogate: PreTrainedModel, batch: Batch) -> int:
        trained = [layer for splice in self.splices for layer in splice.translators]
        last = self.splices[-1]
        if self.args.objective == "gradients":
            rows, length = batch_shape(batch)
            first = self.splices[0].replaced.first
            return rows * gradients_macs(self.target.config, surrogate.config, length, first, trained)
        if self.args.objective == "hidden":
            layers, head = range(last.surrogate_layer + 1), False
            target = forward_macs(self.target, batch, range(last.target_layer + 1))
        else:
            layers, head = range(num_layers(surrogate.config)), True
            target = forward_macs(self.target, batch, head=True) if self.args.objective == "logits" else 0
        again = range(trained[0], self._checkpointed) if _checkpointing(surrogate) else range(0)
        return target + step_macs(surrogate, batch, layers, trained, head) + forward_macs(surrogate, batch, again)


def train(
    surrogate: PreTrainedModel, target: PreTrainedModel, batches: Iterable[Batch], args: TranslatorConfig
) -> TranslatorTraining:
    """Trains the translator layers, all their weights and nothing else, in place.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage. In half precision its translators are trained in
            float32, which needs `bf16` or `fp16` in the arguments, and rounded at the end.
        target (`PreTrainedModel`): what it was cut from.
        batches (`Iterable[Batch]`): text. Its token ids are kept in memory; `ImagePrompts` are embedded anew.
        args (`TranslatorConfig`): the arguments.

    Returns:
        `TranslatorTraining`: what was done.

    Raises:
        HfChainError: when there is nothing to train on, the surrogate is offloaded or quantised, the precision does
            not fit, or the loss stops being finite.
    """
    check_batches(batches, "the training text", passes=1)
    samples = batches if isinstance(batches, (Sequence, ImagePrompts)) else list(batches)
    if not len(samples):
        raise HfChainError("there is no text to train the translator on: give at least one batch")
    if isinstance(samples, Sequence):
        for batch in samples:
            forward_inputs(surrogate, batch)
        if not any(counted_tokens(args.objective, batch) for batch in samples):
            raise HfChainError("the text holds no token to predict: give labels other than -100, or none")
    if any(weight.is_meta for weight in surrogate.parameters()):
        raise HfChainError("weights of the surrogate are offloaded, and cannot be trained so: load it whole")
    half = surrogate.dtype in (torch.bfloat16, torch.float16)
    if half and not (args.bf16 or args.fp16):
        raise HfChainError(
            f"the surrogate is in {surrogate.dtype}, whose steps are too coarse for training: set bf16=True in"
            " TranslatorConfig, which keeps the trained weights in float32"
        )
    autocast = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    trained = [weight for module in translator_modules(surrogate) for weight in module.parameters()]
    # Mixed precision replaces the model's forward.
    with (
        trained_in_float32(surrogate, trained, autocast),
        trained_in_float32(target, (), autocast),
        _trainable(surrogate, target),
        replaced_forward(surrogate, surrogate.forward),
    ):
        trainer = TranslatorTrainer(surrogate, target, args, samples)
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
        return trainer.result()


@contextmanager
def _trainable(surrogate: PreTrainedModel, target: PreTrainedModel) -> Iterator[None]:
    """Lets the translators alone be trained, in float32 at least; the rest is as before afterwards."""
    translators, dtype = translator_modules(surrogate), surrogate.dtype
    for module in translators:
        for name, weight in module.named_parameters():
            if not weight.is_floating_point():
                raise HfChainError(f"{name} of the translator is {weight.dtype}, which has no gradient: load it wide")
    flags = [(weight, weight.requires_grad) for weight in surrogate.parameters()]
    modes = [(module, module.training) for model in (surrogate, target) for module in model.modules()]
    checkpointing = [module for module in surrogate.modules() if getattr(module, "gradient_checkpointing", False)]
    dropouts = [(layer, layer.dropout) for layer in decoder_layers(surrogate) if hasattr(layer, "dropout")]
    try:
        surrogate.requires_grad_(False)
        for module in translators:
            module.requires_grad_(True)
            if dtype in (torch.bfloat16, torch.float16):
                module.float()
        yield
    finally:
        for module in translators:
            module.to(dtype)
        for weight, needed in flags:
            weight.requires_grad_(needed)
            weight.grad = None
        for module, training in modes:
            module.training = training
        for layer, dropout in dropouts:
            layer.dropout = dropout
        for module in surrogate.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = module in checkpointing


def _set_modes(surrogate: PreTrainedModel, model: nn.Module, layers: int) -> None:
    """Evaluation mode, but for layers that forget their activations, which they do in training mode alone."""
    model.eval()
    if _checkpointing(surrogate):
        for layer in decoder_layers(surrogate)[:layers]:
            # The layer itself, and nothing in it; OPT's reads a rate of dropout itself.
            layer.training = True
            if hasattr(layer, "dropout"):
                setattr(layer, "dropout", 0.0)  # noqa: B010


def _checkpointing(model: PreTrainedModel) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def _only_one(samples: list[Batch]) -> Batch:
    """A sample of the Trainer is a batch of text already."""
    return samples[0]
