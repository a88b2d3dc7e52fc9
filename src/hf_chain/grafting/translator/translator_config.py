"""Arguments of `TranslatorTrainer`: those of `TrainingArguments` and the objective."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from hf_chain.errors import HfChainError

OBJECTIVES = ("hidden", "logits", "lm")
"""What a translator may be trained for."""


@dataclass
class TranslatorConfig(TrainingArguments):
    """[`~transformers.TrainingArguments`] for the training of translators; the defaults are those of arXiv 2505.22664.

    A sample is a whole batch of text as it was given, so `per_device_train_batch_size` counts batches.

    Args:
        objective (`str`): `hidden` brings the hidden state at the splice to the target's and runs neither the layers
            after it nor the head; `logits` brings the prediction to the target's (KL divergence); `lm` predicts the
            text and does not run the target.

    Raises:
        HfChainError: for an unknown objective, and for a batch size other than one.
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
        if self.objective not in OBJECTIVES:
            raise HfChainError(f"objective={self.objective!r} is unknown: use one of {', '.join(OBJECTIVES)}")
        if self.per_device_train_batch_size != 1:
            raise HfChainError(
                f"per_device_train_batch_size={self.per_device_train_batch_size}: the text comes in batches already,"
                " give larger ones or set gradient_accumulation_steps"
            )
        super().__post_init__()
