"""Arguments of `ChainTrainer`: those of `TrainingArguments` and what the chain adds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import SchedulerType, TrainingArguments

from hf_chain.arguments.checkpointing import take_new_names
from hf_chain.arguments.extension_locks import guard_builds
from hf_chain.arguments.field_checks import CHECKED_UNUSED, NUMBERS, check_accelerator
from hf_chain.arguments.option_types import SwitchOrAuto, take_numbers
from hf_chain.arguments.precision import settle_bfloat16
from hf_chain.distillation import SCHEDULES
from hf_chain.tasks import TASKS, feature_loss_weight
from hf_chain.tasks.values import check_values_of


@dataclass
class ChainConfig(TrainingArguments):
    """[`~transformers.TrainingArguments`] for one member of a chain.

    Args:
        task (`str`): the pre-training paradigm, one of `tasks.TASKS`.
        feature_loss_weight (`float`, *optional*): weight α of the feature loss; the task's own by default. The
            contrastive task's is 500, as published for embedding size 512, and is scaled to the teacher's size.
            Source: CoM-PT (arXiv 2604.12391).
        feature_loss_schedule (`str`): `constant`, `linear` or `cosine`: how the weight goes to zero.
        feature_loss_until (`float`): share of the training, in (0, 1], after which the weight is zero and the teacher
            is no longer run.
        identical_captions_positive (`bool`): whether identical captions in the global batch are positives of each
            other.
        micro_batch_size (`int`, *optional*): samples a device that go through the model at once. The loss is still
            that of the whole `per_device_train_batch_size` on all devices; where samples look at each other, as in a
            contrastive loss, at the price of a second forward pass. Source: GradCache (arXiv 2101.06983).
        image_token_keep (`float`): share of the patch tokens, in (0, 1], kept at random while training. Source: FLIP
            (arXiv 2212.00794).
        unmasked_tail (`float`): share of the training, in [0, 1], at its end that sees all tokens.
        trunk_decay (`float`, *optional*): share of the training, in (0, 1), at its end that is a branch for delivery:
            up to it the learning rate is stable after its warm-up, then it falls to 0. What is there before it falls
            is kept as the trunk, from which successors grow. Sources: arXiv 2404.06395, arXiv 2511.04981.
        trunk_merge (`int`): where above 0, nothing falls: delivered is the mean of so many states over that share.
            Source: WSM (arXiv 2507.17634).
        new_weights_warmup (`float`): share of the training in which what growth has added warms up, where the
            optimizer's state has grown too; what is inherited goes on at the full rate.
        bf16 (`bool` or `str`): whether to compute in bfloat16; `"auto"` where the device has instructions for it.

    Raises:
        HfChainError: for a value outside its range or that the task has no use for; and for
            `gradient_accumulation_steps` above 1 where samples look at each other, which would train against the
            negatives of one micro-batch only.
    """

    task: str = field(default="contrastive", metadata={"help": f"Pre-training paradigm: {', '.join(TASKS)}."})
    feature_loss_weight: float | None = field(
        default=None, metadata={"help": "Weight of the feature loss; the task's own by default."}
    )
    feature_loss_schedule: str = field(default="constant", metadata={"help": f"One of {', '.join(SCHEDULES)}."})
    feature_loss_until: float = field(default=1.0, metadata={"help": "Share of the training with a teacher."})
    identical_captions_positive: bool = field(
        default=True, metadata={"help": "Count identical captions in a batch as positives of each other."}
    )
    micro_batch_size: int | None = field(
        default=None,
        metadata={"help": "Samples a device that go through the model at once; the loss does not change."},
    )
    image_token_keep: float = field(default=1.0, metadata={"help": "Share of patch tokens kept while training."})
    unmasked_tail: float = field(default=0.1, metadata={"help": "Share of the training, at its end, with all tokens."})
    trunk_decay: float | None = field(
        default=None, metadata={"help": "Share of the training, at its end, in which the stable rate falls to 0."}
    )
    trunk_merge: int = field(default=0, metadata={"help": "States that are merged instead of a decay."})
    new_weights_warmup: float = field(default=0.0, metadata={"help": "Share in which what growth added warms up."})
    bf16: SwitchOrAuto = field(
        default=False,
        metadata={"help": "Computes in bfloat16; auto: where the device has it.", "nargs": "?", "const": True},
    )

    # Defaults of TrainingArguments that do not suit contrastive training.
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator takes every column."})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "A short last batch has fewer negatives."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Every parameter is used."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "A loss that is not finite is an error."})

    def __post_init__(self) -> None:
        take_numbers(self)
        self.bf16 = settle_bfloat16(self.bf16, self.use_cpu)
        take_new_names(self)
        guard_builds(self.deepspeed)
        super().__post_init__()
        check_accelerator(self)
        check_values({name: getattr(self, name) for name in CHECKED})
        if self.trunk_decay is not None:
            # What a trunk is; its branch begins in `ChainTrainer.create_scheduler`.
            self.lr_scheduler_type = SchedulerType.CONSTANT_WITH_WARMUP
        self.feature_loss_weight = feature_loss_weight(
            {"task": self.task, "feature_loss_weight": self.feature_loss_weight}
        )


CHECKED = (
    *NUMBERS,
    "task",
    "feature_loss_schedule",
    "feature_loss_weight",
    "feature_loss_until",
    "image_token_keep",
    "unmasked_tail",
    "micro_batch_size",
    "trunk_decay",
    "trunk_merge",
    "new_weights_warmup",
    *CHECKED_UNUSED,
    "label_names",
    "neftune_noise_alpha",
    "train_sampling_strategy",
)
"""Fields whose values are checked beyond their type."""


def check_values(values: dict[str, Any]) -> None:
    """Checks types and ranges of `ChainConfig` fields without making one, which would start an engine.

    Args:
        values (`dict`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    check_values_of(ChainConfig, values)
