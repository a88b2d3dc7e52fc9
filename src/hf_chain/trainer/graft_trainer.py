"""GraftTrainer: the Trainer of the graft's stages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.utils import logging

from hf_chain.arguments.checkpointing import CHECKPOINTING, check_checkpointing, checkpoints_activations
from hf_chain.arguments.trainer_arguments import check_arguments
from hf_chain.data.chat.collator import PackedRows, check_packing
from hf_chain.engine import check_rates_and_saving
from hf_chain.errors import HfChainError
from hf_chain.grafting.trained_layers import note_trained_layers, trained_weights
from hf_chain.losses import response_loss, response_targets
from hf_chain.master_weights import trained_in_float32
from hf_chain.trainer.batch_cost import batch_cost
from hf_chain.trainer.graft_config import GraftConfig
from hf_chain.trainer.lora import FOLDER as LORA_FOLDER
from hf_chain.trainer.lora import attach_lora, check_adapters, has_lora, is_lora, load_lora, lora_aside, stock_state
from hf_chain.trainer.meters import TokenMeter
from hf_chain.trainer.part_aliases import decoder_of, image_parameters
from hf_chain.trainer.parts import (
    GradientCheck,
    check_part_optimizers,
    freeze_all_but,
    optimizer_groups,
    resolve_parts,
)
from hf_chain.trainer.stage_trainer import StageTrainer, TrainOrder, require_columns
from hf_chain.trainer.trainable_files import save_adapter, save_trainable

logger = logging.get_logger(__name__)

NO_MODEL_INPUTS = ("labels", "loss_weights")


class GraftTrainer(StageTrainer):
    """Trains named parts of a vision-language model, or of a plain decoder, on responses.

    Everything else is frozen: it stores no gradients, yet lets them through to the parts below it. Whatever works with
    [`~transformers.Trainer`] works here. Source: Zero-Shot Vision Encoder Grafting (arXiv 2505.22664).

    Args:
        model (`PreTrainedModel`): a `GraftedVLMForConditionalGeneration`, or a decoder with a language-model head. The
            part `lora` is attached to it when it is not there yet.
        args (`GraftConfig`): the arguments.
        kwargs: as for `Trainer`: `train_dataset`, `data_collator`, `processing_class`, `callbacks`, … The collator
            gives `input_ids`, `attention_mask`, `labels` `[B, L]` (−100 outside of responses), and where they are
            needed `pixel_values`, `position_ids` of packed sequences and `loss_weights` `[B, L]`.

    Attributes:
        parts (`tuple[Part, ...]`): what is trained.
        cost (`BatchCost`): MACs of a training step on a batch; what has been spent is in `state.total_flos`.

    Raises:
        HfChainError: when the model has an adapter that would not be saved, when a part is not in the model, when the
            collator packs and the model would not keep packed conversations apart, at the first step when a part got
            no gradient, and when the loss or a weight stops being finite.
    """

    args: GraftConfig
    optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None

    def __init__(self, model: PreTrainedModel | None = None, args: GraftConfig | None = None, **kwargs: Any) -> None:
        check_arguments(type(self), model, args, GraftConfig, kwargs)
        assert model is not None and args is not None
        check_adapters(model, decoder_of(model))
        if not isinstance(model, PreTrainedModel):
            raise HfChainError(
                f"the model to train is a {type(model).__name__}: give the vision-language model or decoder itself"
            )
        check_checkpointing(model)
        again = checkpoints_activations(model) or any(getattr(args, name, False) for name in CHECKPOINTING)
        if "lora" in args.parts and not has_lora(decoder_of(model)):
            attach_lora(decoder_of(model), args.lora, args.seed)
        self.parts = resolve_parts(model, args.parts, args.learning_rate)
        freeze_all_but(model, self.parts)
        check_part_optimizers(kwargs, model, self.parts)
        # What LoRA changes is noted when it is merged.
        decoder = decoder_of(model)
        note_trained_layers(decoder, [name for name in trained_weights(decoder) if not is_lora(name)])
        use_cache = getattr(model.config, "use_cache", None)
        super().__init__(model=model, args=args, compute_loss_func=response_loss, **kwargs)
        if use_cache is not None:
            # The Trainer would switch the cache off in the saved model; `compute_loss` does so for training alone.
            model.config.use_cache = use_cache
        if self.engine.is_deepspeed:
            check_rates_and_saving(self.accelerator.state.deepspeed_plugin.deepspeed_config)
        if getattr(self.data_collator, "packing", False) and not self.engine.is_deepspeed:
            # DeepSpeed has not placed the model yet.
            check_packing(model)
        self.cost = batch_cost(model, self.parts, again)
        self.meter = TokenMeter(self.engine.sum)
        self.gradient_check: GradientCheck | None = None
        self._group_parts: list[str] = []
        self._rates: dict[str, float] = {}

    def on_begin(self) -> None:
        """Starts the meter and the question for gradients."""
        # Checkpointing does not need it, and it would send gradients through frozen layers to the inputs.
        self._unwrapped.disable_input_require_grads()
        self.meter.start(self.state.total_flos)
        needs_images, engine = image_parameters(self._unwrapped), self.engine
        self.gradient_check = GradientCheck(self.parts, needs_images, engine, engine.is_deepspeed)

    def on_end(self) -> None:
        """Warns of image parts that saw no image."""
        if (check := self.gradient_check) is not None and check.pending:
            logger.warning(
                f"there was no image in the whole training, so {len(check.pending)} trained parameters, such as "
                f"{min(check.pending)}, are as they were"
            )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as `Trainer` does, with trained parameters in float32; DeepSpeed keeps copies of its own for that."""
        with self._in_float32():
            return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluates as `Trainer` does, with weights of the types that it trains with."""
        with self._in_float32():
            return super().evaluate(*args, **kwargs)

    def _in_float32(self) -> AbstractContextManager[None]:
        if self.engine.is_deepspeed:
            return nullcontext()
        autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.accelerator.mixed_precision)
        trained = [parameter for part in self.parts for parameter in part.parameters.values()]
        return trained_in_float32(self._unwrapped, trained, autocast)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        args = self.args
        if args.train_sampling_strategy == "group_by_length" and isinstance(dataset, PackedRows):
            sampler: Any = LengthGroupedSampler(
                args.train_batch_size * args.gradient_accumulation_steps, lengths=dataset.lengths
            )
        else:
            sampler = super()._get_train_sampler(dataset)
        if isinstance(sampler, LengthGroupedSampler):
            # A data set's column reads the table for every length it is asked for: minutes for a million rows.
            sampler.lengths = list(sampler.lengths)
        if sampler is None or args.train_sampling_strategy in ("random", "sequential"):
            return sampler
        self.train_order = TrainOrder(sampler, args.seed if args.data_seed is None else args.data_seed)
        return self.train_order

    # One batch's way: tokens -> logits -> mean over all response tokens -> gradient

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor | None]:
        """The micro-batches of an optimiser step, and what their response tokens weigh in all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        if not batches:
            return batches, None
        for batch in batches:
            require_columns(batch, ("input_ids", "labels"), "ChatCollator(processor)")
        weight = torch.stack([response_targets(batch)[1].sum() for batch in batches]).sum()
        weight = self.engine.sum(weight)
        return batches, torch.where(weight > 0, weight, 1.0)

    def _step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        tokens, pixels = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])), inputs.get("pixel_values")
        self.meter.add(tokens.sum(), 0 if pixels is None else len(pixels))
        if self.gradient_check is not None:
            self.gradient_check.see_batch(has_images=pixels is not None)
        loss = super()._step(model, inputs, num_items_in_batch)
        if self.gradient_check is not None and self.accelerator.sync_gradients:
            # Before they are clipped, which turns them into zeros where one of them is infinite.
            self.gradient_check.ask()
            if not self.gradient_check.pending:
                self.gradient_check = None
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Weighted mean of the cross-entropy over the response tokens of the global batch."""
        fed = {name: value for name, value in inputs.items() if name not in NO_MODEL_INPUTS}
        # The decoder's own configuration says otherwise; with a cache, packed sequences would see each other.
        outputs = model(**fed | {"use_cache": False})
        targets, weights = response_targets(inputs)
        total = response_loss(outputs["logits"], targets, weights)
        if num_items_in_batch is None or not model.training:
            # The Trainer evaluates with a number of labels that knows nothing of weights and packs.
            loss = total / weights.sum().clamp(min=1.0)
        else:
            # Engines average gradients over processes.
            loss = total / num_items_in_batch * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    # Learning rates

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """An optimizer with groups for every part."""
        if self.optimizer is None:
            groups = optimizer_groups(self.parts, self.get_decay_parameter_names(self.model), self.args.weight_decay)
            self._group_parts = [group.pop("part") for group in groups]
            kind, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer_cls_and_kwargs = (kind, options | {"params": groups})
        return super().create_optimizer(model)

    def on_step(self) -> None:
        """Keeps the rates of the present step, which the schedule changes before they are logged.

        An optimizer that was handed in has groups of its own; the Trainer logs the first one's rate.
        """
        if self._group_parts:
            groups = self.optimizer.param_groups
            self._rates = {part: group["lr"] for part, group in zip(self._group_parts, groups, strict=True)}

    # Cost and meters

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Operations of a training step on this batch; the Trainer sums them up and keeps them in checkpoints."""
        return 2 * self.cost(inputs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds learning rates, tokens/s, images/s, TFLOP/s and MACs so far to what the Trainer logs."""
        if "loss" in logs:
            logs |= {f"learning_rate/{part}": rate for part, rate in self._rates.items()}
            logs |= self.meter.read(self.state.total_flos)
            logs["macs"] = self.state.total_flos / 2
        super().log(logs, start_time)

    # Files

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the stock model with LoRA beside it; outside of checkpoints also the trainable-only files."""
        super().save_model(output_dir, _internal_call)
        folder, model = Path(output_dir or self.args.output_dir), self._unwrapped
        if _internal_call:
            save_adapter(model, folder, self.args.should_save)
        else:
            save_trainable(model, self.parts, folder, self.args.stage, self.args.should_save)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        with lora_aside(decoder_of(self._unwrapped)):
            super()._save(output_dir, None if state_dict is None else stock_state(state_dict))

    @contextmanager
    def _loading(self, checkpoint: str) -> Iterator[None]:
        decoder = decoder_of(self._unwrapped)
        with lora_aside(decoder):
            yield
        if has_lora(decoder):
            load_lora(decoder, Path(checkpoint) / LORA_FOLDER)
