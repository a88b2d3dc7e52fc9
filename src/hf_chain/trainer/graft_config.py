"""Arguments of `GraftTrainer`: those of `TrainingArguments` and which parts are trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import SchedulerType, TrainingArguments

from hf_chain.arguments.checkpointing import CHECKPOINTING_OPTIONS, take_new_names
from hf_chain.arguments.extension_locks import guard_builds
from hf_chain.arguments.field_checks import CHECKED_UNUSED, NUMBERS, check_accelerator, check_common_values
from hf_chain.arguments.option_types import Options, PartRates, SwitchOrAuto, part_rates, read_object, take_numbers
from hf_chain.arguments.precision import settle_bfloat16
from hf_chain.errors import HfChainError
from hf_chain.trainer.parts import check_parts


@dataclass
class GraftConfig(TrainingArguments):
    """[`~transformers.TrainingArguments`] for one training stage of a graft.

    The defaults are those of Zero-Shot Vision Encoder Grafting (arXiv 2505.22664): AdamW without weight decay,
    gradients clipped at 1.0, warm-up for 3.05 % of the steps and a cosine to zero, bfloat16.

    Args:
        parts (`dict[str, float]` or `list[str]`): what is trained: aliases (`adapter`, `image_tokens`, `encoder`,
            `encoder.last:8`, `encoder.post_layernorm`, `translator`, `decoder`, `decoder.last:8`, `lora`), modules, or
            patterns over parameter names; each with its own peak learning rate, or `learning_rate` where it has none.
            On a command line JSON, or names with commas between them.
        lora (`dict`, *optional*): fields of `peft.LoraConfig` for the part `lora`; rank 16, alpha 32 and all linear
            layers of the decoder by default. On a command line JSON.
        stage (`str`, *optional*): name of the stage, kept in `trainable.json`.
        bf16 (`bool` or `str`): whether to compute in bfloat16; `"auto"` where the device has instructions for it.

    Raises:
        HfChainError: for a value outside its range, and when `parts` is empty.
    """

    parts: PartRates = field(
        default_factory=dict, metadata={"help": "Trained parts and their learning rates; everything else is frozen."}
    )
    lora: Options = field(default=None, metadata={"help": "Fields of peft.LoraConfig for `lora`."})
    stage: str | None = field(default=None, metadata={"help": "Name of the stage."})

    # What the paper trains every stage with, where TrainingArguments has another default.
    lr_scheduler_type: SchedulerType | str = field(default="cosine", metadata={"help": "Shape of the learning rate."})
    warmup_steps: float = field(default=0.0305, metadata={"help": "Steps of warm-up, or below 1 their share."})
    bf16: SwitchOrAuto = field(
        default=True,
        metadata={"help": "Computes in bfloat16; auto: where the device has it.", "nargs": "?", "const": True},
    )

    # Defaults of TrainingArguments that do not suit.
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator takes every column."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Every parameter is used."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "A loss that is not finite is an error."})

    def __post_init__(self) -> None:
        take_numbers(self)
        self.parts = part_rates(self.parts)
        if isinstance(self.lora, str):
            self.lora = read_object("lora", self.lora)
        self.bf16 = settle_bfloat16(self.bf16, self.use_cpu)
        take_new_names(self)
        guard_builds(self.deepspeed)
        super().__post_init__()
        check_accelerator(self)
        if self.accelerator_config.dispatch_batches is None:
            # A stream's batch cannot be cut by rows: it has as many images as it has. Every process makes its own.
            self.accelerator_config.dispatch_batches = False
        check_graft_values({name: getattr(self, name) for name in CHECKED if hasattr(self, name)})


CHECKED = (
    "parts",
    "lora",
    "stage",
    *NUMBERS,
    *CHECKED_UNUSED,
    *CHECKPOINTING_OPTIONS,
    "label_names",
)
"""Fields whose values are checked beyond what `TrainingArguments` does."""


def check_graft_values(values: dict[str, Any]) -> None:
    """Checks types and ranges of `GraftConfig` fields without making one, which would start an engine.

    Args:
        values (`dict`): known field names to values; fields that are not there are not checked.

    Raises:
        HfChainError: naming the first field that does not fit, its value and what is allowed.
    """
    check_common_values(GraftConfig, values)
    if "parts" in values:
        check_parts(values["parts"])
    if values.get("fp16") and values.get("bf16", True):
        raise HfChainError("fp16 is true beside bf16, which is true by default: set bf16 to false as well")
    if (labels := values.get("label_names")) not in (None, ["labels"]):
        raise HfChainError(f"label_names is {labels!r}, and the loss is of labels: leave it out")
    for name in CHECKPOINTING_OPTIONS:
        if isinstance(values.get(name), dict) and values[name].get("use_reentrant"):
            raise HfChainError(
                f"{name} asks for use_reentrant, which gives layers behind frozen ones no gradient: leave it out"
            )
