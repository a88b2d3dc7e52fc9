"""Arguments of `TranslatorTrainer`: those of `TrainingArguments` and the objective."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel, TrainingArguments

from hf_chain.arguments.checkpointing import take_new_names
from hf_chain.arguments.extension_locks import guard_builds
from hf_chain.arguments.field_checks import CHECKED_UNUSED, NUMBERS, check_accelerator, check_common_values
from hf_chain.arguments.option_types import take_numbers
from hf_chain.errors import HfChainError

OBJECTIVES = ("hidden", "logits", "lm", "gradients")
"""What a translator may be trained for."""


@dataclass
class TranslatorConfig(TrainingArguments):
    """[`~transformers.TrainingArguments`] for the training of translators; the defaults are those of arXiv 2505.22664.

    A sample is a whole batch of text as it was given, so `per_device_train_batch_size` counts batches.

    Args:
        objective (`str`): `hidden` brings the hidden state at the splice to the target's and runs neither the layers
            after it nor the head; `logits` brings the prediction to the target's (KL divergence); `lm` predicts the
            text and does not run the target; `gradients` is `hidden`, and brings what flows back to the
            layers before it to what flows back out of the target.

    Raises:
        HfChainError: for a value outside its range, an unknown objective, and a batch size other than one.
    """

    objective: str = field(default="hidden", metadata={"help": f"One of {', '.join(OBJECTIVES)}."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the text."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.0305, metadata={"help": "Steps of warm-up; below 1 a share of all."})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "Given batches in a step; only 1."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Batches hold tensors, not columns."})
    save_strategy: str = field(default="no", metadata={"help": "When checkpoints are saved."})

    def __post_init__(self) -> None:
        take_numbers(self)
        take_new_names(self)
        guard_builds(self.deepspeed)
        super().__post_init__()
        check_accelerator(self)
        check_translator_values({name: getattr(self, name) for name in CHECKED})


CHECKED = (
    "objective",
    "per_device_train_batch_size",
    "train_sampling_strategy",
    "label_names",
    *NUMBERS,
    *CHECKED_UNUSED,
)
"""Fields whose values are checked beyond what `TrainingArguments` does."""


def fields_for(surrogate: PreTrainedModel) -> dict[str, Any]:
    """Fields of `TranslatorConfig` that follow from where a surrogate is, and in what type.

    Args:
        surrogate (`PreTrainedModel`): a surrogate with its lineage.

    Returns:
        `dict[str, Any]`: name of a field -> its value.
    """
    return {"use_cpu": surrogate.device.type == "cpu", "bf16": surrogate.dtype.itemsize < torch.float32.itemsize}


def check_translator_values(values: dict[str, Any]) -> None:
    """Checks types and ranges of `TranslatorConfig` fields without making one, which would start an engine.

    Args:
        values (`dict`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    check_common_values(TranslatorConfig, values)
    if values.get("neftune_noise_alpha"):
        raise HfChainError("neftune_noise_alpha would do nothing: translators are trained without noise; leave it out")
    if labels := values.get("label_names"):
        raise HfChainError(f"label_names is {labels!r}, and the text is its own label: leave it out")
    if values.get("train_sampling_strategy") == "group_by_length":
        raise HfChainError("train_sampling_strategy is 'group_by_length', but the text comes in batches already")
    _check(values.get("objective", "hidden"), values.get("per_device_train_batch_size", 1))


def _check(objective: str, batch_size: int) -> None:
    if objective not in OBJECTIVES:
        raise HfChainError(f"objective={objective!r} is unknown: use one of {', '.join(OBJECTIVES)}")
    if batch_size != 1:
        raise HfChainError(
            f"per_device_train_batch_size={batch_size}: the text comes in batches already, give larger ones or set"
            " gradient_accumulation_steps"
        )
