"""The sections of a grafting recipe that say what is joined."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hf_chain.grafting.ranges import Budget
from hf_chain.grafting.translator.splice_runs import HELD_OUT_EVERY
from hf_chain.settings import MOST_EPOCHS, Settings, expanded

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class NewTargetSettings(Settings):
    """A small Llama that is trained here, where there is no language model to download."""

    hidden_size: int = Field(192, ge=8, description="Width.")
    intermediate_size: int | None = Field(None, ge=8, description="Width of the MLP; null takes three times that.")
    num_hidden_layers: int = Field(8, ge=3, description="Layers.")
    head_size: int = Field(32, ge=2, description="Width of an attention head.")
    vocab_size: int = Field(1_000, ge=300, description="Most entries of its tokenizer, which is trained here.")
    max_length: int = Field(512, ge=16, description="Context in tokens.")
    data: list[str] = Field(["text"], min_length=1, description="Names of the conversations it learns from.")
    epochs: float = Field(1.0, gt=0, le=MOST_EPOCHS, description="Passes over them.")
    training: dict[str, Any] = Field({}, description="`GraftConfig` fields.")

    @model_validator(mode="after")
    def _heads_fill_the_width(self) -> NewTargetSettings:
        if self.hidden_size % self.head_size:
            raise ValueError(f"head_size is {self.head_size}, which does not divide hidden_size {self.hidden_size}")
        return self


class TargetSettings(Settings):
    """The language model that the encoder is meant for."""

    name_or_path: str | None = Field(None, description="Hub name or folder of a decoder-only language model.")
    revision: str | None = Field(None, description="Branch, tag or commit on the Hub.")
    new: NewTargetSettings | None = Field(None, description="A small one to train instead.")
    dtype: Dtype = Field("auto", description="Type of the weights; auto takes the checkpoint's.")
    attn_implementation: str | None = Field(None, description="Attention kernel; null lets transformers choose.")

    _paths = field_validator("name_or_path")(expanded)

    @model_validator(mode="after")
    def _is_one_of_two(self) -> TargetSettings:
        if (self.name_or_path is None) == (self.new is None):
            raise ValueError("target needs either name_or_path or new; give exactly one of them")
        if self.revision is not None and (self.name_or_path is None or Path(self.name_or_path).is_dir()):
            raise ValueError(
                f"target.revision is {self.revision!r}, but {self.name_or_path or 'a new target'} is not on the Hub; "
                "leave it out"
            )
        return self


class EncoderSettings(Settings):
    """The vision encoder."""

    name_or_path: str | None = Field(None, description="Hub name or folder of a vision model or a dual encoder.")
    chain: str | None = Field(
        None,
        description="Recipe of a chain, beside this one: its largest finished member is the encoder; where there is "
        "none, its first member is trained.",
    )

    _paths = field_validator("name_or_path", "chain")(expanded)

    @model_validator(mode="after")
    def _is_one_of_two(self) -> EncoderSettings:
        if (self.name_or_path is None) == (self.chain is None):
            raise ValueError("encoder needs either name_or_path or chain; give exactly one of them")
        return self


class CalibrationSettings(Settings):
    """Conversations that the cut is chosen and the translator is fitted with."""

    data: str | None = Field(None, description="Name of the data; null takes the first one.")
    samples: int = Field(300, ge=1, description="Conversations the trajectory is measured on.")
    translator_samples: int = Field(
        1_000, ge=HELD_OUT_EVERY, description="Conversations a closed-form translator is fitted on."
    )
    batch_size: int = Field(16, ge=1, description="Conversations in one forward.")
    responses_only: bool = Field(
        False, description="Judge predictions on responses alone, for a target that has learnt nothing else."
    )


class BudgetSettings(Settings):
    """The most that a surrogate may be, by one of three measures."""

    parameters: int | None = Field(None, ge=1, description="Parameters, embeddings and head included.")
    macs_share: float | None = Field(None, gt=0, lt=1, description="Share of the target's forward MACs.")
    layers: int | None = Field(None, ge=2, description="Layers, translators included.")

    @model_validator(mode="after")
    def _has_one_measure(self) -> BudgetSettings:
        if sum(value is not None for value in vars(self).values()) != 1:
            raise ValueError("budget needs one measure; give parameters, macs_share or layers")
        return self


class SurrogateSettings(Settings):
    """How the surrogate is cut out of the target."""

    replaced: str = Field("two_segment", description="Layers to replace, such as 16-26, or a criterion.")
    translators: int = Field(1, ge=1, description="Layers that stand in for each range.")
    translator: list[str] = Field(["closed_form"], min_length=1, description="How they are made, in turn.")
    translator_training: dict[str, Any] = Field({}, description="`TranslatorConfig` fields, for the method `train`.")
    budget: BudgetSettings | None = Field(None, description="The most that the surrogate may be; criteria follow it.")
    calibration: CalibrationSettings = Field(CalibrationSettings(), description="What both are measured on.")

    @property
    def limit(self) -> Budget | None:
        """The budget as criteria take it."""
        return None if self.budget is None else Budget(**self.budget.model_dump(exclude_none=True))


class VLMSettings(Settings):
    """What joins encoder and language model."""

    vision_layer: int = Field(-1, description="Hidden state of the encoder that is used.")
    class_token: bool = Field(True, description="Whether class and register tokens are handed on.")
    post_layernorm: bool = Field(True, description="Whether all tokens pass the encoder's last norm.")
    adapter_layers: int = Field(2, ge=1, description="Linear layers of the adapter.")
    adapter_hidden_size: int | None = Field(None, ge=1, description="Its inner size; null takes the decoder's.")
    image_token: str = Field("<image>", description="What stands for an image in a prompt.")
