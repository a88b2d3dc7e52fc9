"""What a recipe says about evaluation."""

from __future__ import annotations

from pydantic import Field, field_validator

from hf_chain.settings import Settings


class SplitSettings(Settings):
    """What the `evaluation` sections of all tasks have."""

    splits: list[str] = Field(["validation"], min_length=1, description="Splits to evaluate each member on.")
    batch_size: int = Field(256, ge=1, description="Samples in one forward.")
    max_samples: int | None = Field(
        None, ge=1, description="Evaluate this many rows of each split, spread evenly over it; null takes all."
    )


class EvaluationSettings(SplitSettings):
    """The `evaluation` section of a recipe of dual encoders."""

    zero_shot: bool | None = Field(
        None, description="Measure zero-shot classification; null measures it when the data has class names."
    )
    retrieval: bool | None = Field(
        None, description="Measure image-text retrieval; null measures it when the data has captions."
    )
    batch_size: int = Field(256, ge=1, description="Images, or texts, in one forward.")
    prompt_templates: list[str] | None = Field(
        None, min_length=1, description="Prompts with {} for the class name; null takes the templates of the data."
    )

    @field_validator("prompt_templates")
    @classmethod
    def _check_templates(cls, templates: list[str] | None) -> list[str] | None:
        for template in templates or []:
            if template.count("{}") != 1:
                raise ValueError(f"prompt_templates: {template!r} must contain {{}} once, in place of the class name")
        return templates
