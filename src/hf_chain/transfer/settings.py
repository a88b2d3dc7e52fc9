"""What a suite file says: data sets, and what is measured on each. Starts no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hf_chain.data.prompts import PROMPT_TEMPLATES, checked_templates
from hf_chain.data.settings import AugmentationSettings, ScenesSettings
from hf_chain.runs.recipe_file import read_values, validated
from hf_chain.settings import LARGEST_SEED, MOST_EPOCHS, FolderName, Settings, expanded

Kind = Literal["zero_shot", "linear_probe", "fine_tune"]
TEXT_FILE = ".txt"
"""What names a file of class names or templates, one a line, beside the data."""


class FineTuneSettings(Settings):
    """How a tower is fine-tuned: AdamW, all weights and a new head, a cosine after a warm-up."""

    epochs: float = Field(10, gt=0, le=MOST_EPOCHS, description="Passes over the training split.")
    batch_size: int = Field(64, ge=1, description="Images of a step.")
    learning_rate: float = Field(1e-4, gt=0, description="Its largest value, the same for tower and head.")
    weight_decay: float = Field(0.05, ge=0, description="Of AdamW.")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    augmentation: AugmentationSettings = Field(
        AugmentationSettings(), description="Random changes of the training images."
    )


class TransferSet(Settings):
    """One data set of a suite."""

    name: FolderName = Field(description="What it is called in results.")
    source: str = Field(min_length=1, description="As `data.source` of a recipe: a Hub name, a folder, `scenes`, ….")
    kind: list[Kind] = Field(
        min_length=1, description="What is measured: `zero_shot`, `linear_probe`, `fine_tune`, or a list of them."
    )
    config_name: str | None = Field(None, description="Configuration of a Hub data set that has several.")
    data_files: str | list[str] | dict[str, str | list[str]] | None = Field(
        None, description="Files to read, also by split, as `datasets.load_dataset` takes them."
    )
    scenes: ScenesSettings = Field(ScenesSettings(), description="The rendered scenes, for `source: scenes`.")
    train_split: str = Field("train", description="Split that probes and heads are trained on.")
    split: str = Field("test", description="Split that is judged.")
    image_column: str | None = Field(None, description="Column of images; null takes the only one.")
    label_column: str | None = Field(
        None, description="Column of class numbers; null takes the only ClassLabel, or `label`, `labels` or `cls`."
    )
    class_names: str | list[str | list[str]] | None = Field(
        None,
        description="Names by class number, a list where a class has several, or a text file beside the data with one "
        "a line; null takes those of the ClassLabel.",
    )
    templates: str | list[str] = Field(
        ["a photo of a {}."],
        description="Prompts with `{}` for the name, one of the sets `clip`, `simple` and `scenes`, or a text file "
        "beside the data with one a line.",
    )
    max_samples: int | None = Field(None, ge=1, description="Judge so many rows, spread evenly; null takes all.")
    max_train_samples: int | None = Field(None, ge=5, description="Train on so many rows, likewise.")
    fine_tune: FineTuneSettings = Field(FineTuneSettings(), description="How `fine_tune` trains.")

    _paths = field_validator("source", "data_files")(expanded)

    @field_validator("kind", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("templates")
    @classmethod
    def _templates_have_a_place_for_the_name(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list):
            return list(checked_templates(value))
        if value not in PROMPT_TEMPLATES and not value.endswith(TEXT_FILE):
            known = ", ".join(PROMPT_TEMPLATES)
            raise ValueError(f"templates is {value!r}; give a list, one of {known}, or the name of a {TEXT_FILE} file")
        return value

    @field_validator("class_names")
    @classmethod
    def _names_are_a_list_or_a_file(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.endswith(TEXT_FILE):
            raise ValueError(f"class_names is {value!r}; give a list, or the name of a {TEXT_FILE} file")
        return value

    @property
    def trains(self) -> bool:
        """Whether the training split is needed."""
        return any(kind != "zero_shot" for kind in self.kind)


class Suite(Settings):
    """A list of data sets, and what is the same for all of them."""

    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seed of held-out rows, of new heads and of their data.")
    batch_size: int = Field(256, ge=1, description="Images, or texts, in one forward.")
    bf16: bool | Literal["auto"] = Field(False, description="Run forwards in bfloat16; `auto` where that is native.")
    output_dir: str = Field("runs/transfer", min_length=1, description="Folder of the checkpoints of fine-tunings.")
    defaults: dict[str, Any] = Field({}, description="Fields of all data sets that do not say otherwise.")
    datasets: list[TransferSet] = Field(min_length=1, description="The data sets.")

    _paths = field_validator("output_dir")(expanded)

    @model_validator(mode="before")
    @classmethod
    def _defaults_hold(cls, values: Any) -> Any:
        defaults, sets = (values.get(name) for name in ("defaults", "datasets"))
        if not isinstance(defaults, dict) or not isinstance(sets, list):
            return values
        return values | {"datasets": [defaults | one if isinstance(one, dict) else one for one in sets]}

    @model_validator(mode="after")
    def _names_differ(self) -> Suite:
        names = [one.name for one in self.datasets]
        if again := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"datasets has {again!r} twice; give each a name of its own")
        return self


def load_suite(path: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Reads and checks a suite file.

    Args:
        path (`str` or `Path`): The YAML file.
        overrides (`Sequence[str]`): Values to replace, such as `datasets.pets.max_samples=100`.

    Raises:
        HfChainError: when the file is missing, is no YAML, or says something that is not allowed.
    """
    return validated(Suite, read_values(path, overrides), origin=str(path))
