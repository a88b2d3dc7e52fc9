"""The `data` section of a recipe: where the pairs come from and how they are shown to the model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from hf_chain.data.prompts import PROMPT_TEMPLATES, checked_templates
from hf_chain.images import MAX_IMAGE_PIXELS
from hf_chain.settings import LARGEST_SEED, Settings, expanded

MOST_SCENES = 10_000_000
"""They are drawn up in memory before the first is rendered."""


class ScenesSettings(Settings):
    """Size and look of the rendered scenes."""

    train: int = Field(10_000, ge=1, le=MOST_SCENES, description="Scenes in the train split.")
    validation: int = Field(1_000, ge=1, le=MOST_SCENES, description="Scenes in the validation split.")
    test: int = Field(1_000, ge=1, le=MOST_SCENES, description="Scenes in the test split.")
    compositional: int = Field(
        1_000, ge=1, le=MOST_SCENES, description="Scenes of colour and shape pairs held out of training."
    )
    image_size: int = Field(64, ge=16, le=512, description="Height and width of a rendered scene in pixels.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seed of the scenes, apart from the training seed.")

    def sizes(self) -> dict[str, int]:
        """Return the number of scenes of each split."""
        return {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
            "compositional": self.compositional,
        }


class AugmentationSettings(Settings):
    """Random changes of the training images. Off by default."""

    crop_scale: tuple[float, float] | None = Field(
        None, description="Smallest and largest share of the largest centre square that a random square crop keeps."
    )
    horizontal_flip: bool = Field(False, description="Mirror half of the images; wrong where captions say left.")

    @field_validator("crop_scale")
    @classmethod
    def _crop_scale_is_a_range(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"crop_scale is {list(value)}; it must be [min, max] with 0 < min <= max <= 1")
        return value

    @property
    def enabled(self) -> bool:
        """Whether any image is changed at all."""
        return self.crop_scale is not None or self.horizontal_flip


class SourceSettings(Settings):
    """Where rows come from, whatever they hold."""

    source: str = Field(description="Where the rows come from.")
    config_name: str | None = Field(None, description="Configuration of a Hub data set that has several.")
    data_files: str | list[str] | dict[str, str | list[str]] | None = Field(
        None, description="Files to read, also by split, as `datasets.load_dataset` takes them."
    )
    train_split: str = Field("train", description="Split to train on; slices such as `train[:90%]` work.")
    validation_split: str | None = Field("validation", description="Split evaluated after every member.")
    test_splits: list[str] = Field([], description="Further splits to evaluate, each under its own name.")
    streaming: bool = Field(False, description="Read the source as a stream instead of downloading it first.")
    shuffle_buffer: int = Field(1_000, ge=1, description="Rows held for shuffling a stream, by all lanes together.")
    stream_lanes: int = Field(
        8,
        ge=1,
        description="Parts that the files of a stream are dealt to, at most: as many processes read their own rows "
        "only, and any number of them sees the same batches.",
    )

    _paths = field_validator("source", "data_files")(expanded)

    @field_validator("source")
    @classmethod
    def _source_is_named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("source is empty; give a Hub name, a local folder or a file pattern")
        return value


class ImageSettings(SourceSettings):
    """Source, columns and augmentation of a data set of images, with class numbers or without."""

    COLUMNS: ClassVar[tuple[str, ...]] = ("image_column", "label_column")
    """Fields that name columns which training reads."""
    _OF_SCENES: ClassVar[dict[str, Any]] = {"label_column": "label", "test_splits": ["test", "compositional"]}
    """What holds for `source: scenes` where nothing else is said."""

    source: str = Field(
        "scenes",
        description="`scenes` (rendered, no download), a Hub name, a local folder, a file or glob (parquet, json, "
        "csv, webdataset tar), or a `datasets` format such as `imagefolder` or `webdataset` with `data_files`.",
    )

    image_column: str = Field("image", description="Column that holds the images.")
    label_column: str | None = Field(None, description="Column that holds the class number of an image.")
    class_names: list[str | list[str]] | None = Field(
        None,
        description="Names by class number, where the source has none; a list where a class has several.",
    )
    max_image_pixels: int = Field(
        MAX_IMAGE_PIXELS, ge=1, description="Pixels above which an image is not read and its row is bad."
    )
    check: Literal["all", "sample", "off"] = Field(
        "all",
        description="Training rows that are decoded before training: all, to leave out bad ones; 1,000, which are "
        "judged alone; or none. Bad rows that are met later are replaced.",
    )
    max_bad_share: float = Field(0.01, ge=0, le=1, description="Share of bad rows above which the run stops.")
    samples_per_epoch: int | None = Field(
        None, ge=1, description="Training images an epoch: needed for streams, and to plan without the data at hand."
    )
    max_train_samples: int | None = Field(None, ge=1, description="Train on a seeded random subset of this size.")
    keep_decoded: bool = Field(
        False,
        description="Keep images in memory once they are decoded, for data that fits there; each worker its own.",
    )
    augmentation: AugmentationSettings = Field(
        default_factory=AugmentationSettings, description="Random changes of the training images."
    )
    image_views: int = Field(
        0,
        ge=0,
        description="Number V of augmented views an image cycles through (epoch mod V), so that teacher "
        "features can be cached; 0 draws a new view each epoch.",
    )
    scenes: ScenesSettings = Field(
        default_factory=ScenesSettings, description="The rendered scenes, for `source: scenes`."
    )

    @field_validator("check", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, value: Any) -> Any:
        return "off" if value is False else value

    @field_validator("class_names")
    @classmethod
    def _every_class_is_named(cls, value: list[str | list[str]] | None) -> list[str | list[str]] | None:
        for number, names in enumerate(value or []):
            if not names or not all(name.strip() for name in ([names] if isinstance(names, str) else names)):
                raise ValueError(f"class_names has no name for class {number}; give one name or a list of names")
        return value

    @model_validator(mode="before")
    @classmethod
    def _scenes_bring_their_columns(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("source", "scenes") == "scenes":
            return {**cls._OF_SCENES, **values}
        return values

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> ImageSettings:
        if self.class_names is not None and self.label_column is None:
            raise ValueError("class_names is given without label_column; name the column that holds the class numbers")
        if self.image_views > 1 and not self.augmentation.enabled:
            raise ValueError(f"image_views is {self.image_views} without augmentation; set it to 0 or augment")
        if self.streaming and self.source == "scenes":
            raise ValueError("streaming is true for source 'scenes', which are rendered here; set it to false")
        return self


class MultiLabelSettings(ImageSettings):
    """Source, columns and augmentation of a data set of images with several classes each, or none."""

    label_column: str = Field("labels", description="Column that holds a list of the class numbers of an image.")


class DataSettings(ImageSettings):
    """Source, columns, captions and augmentation of one data set."""

    COLUMNS: ClassVar[tuple[str, ...]] = ("image_column", "caption_column", "label_column", "class_names_column")
    _OF_SCENES: ClassVar[dict[str, Any]] = ImageSettings._OF_SCENES | {
        "caption_column": "captions",
        "prompt_templates": "scenes",
    }

    caption_column: str | None = Field(None, description="Column that holds one caption or a list of captions.")
    class_names_column: str | None = Field(
        None, description="Column that holds the names of the row's class: a list, or one text with commas."
    )
    class_names_used: Literal["all", "first"] = Field(
        "first", description="Which names of a class make captions and prompts."
    )
    prompt_templates: str | list[str] = Field(
        "clip", description="`clip` (80), `simple` (7), `scenes` (3), or a list of templates with one `{}` each."
    )
    captions_per_image: int = Field(
        1, ge=1, le=1_000, description="Captions K drawn for an image each time it is shown."
    )

    @field_validator("prompt_templates")
    @classmethod
    def _templates_have_a_place_for_the_name(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, str):
            if value not in PROMPT_TEMPLATES:
                known = ", ".join(PROMPT_TEMPLATES)
                raise ValueError(f"prompt_templates is {value!r}; it must be one of {known}, or a list of templates")
            return value
        return list(checked_templates(value))

    @model_validator(mode="after")
    def _something_gives_captions(self) -> DataSettings:
        if self.caption_column is None and self.label_column is None and self.class_names_column is None:
            raise ValueError(
                "caption_column, label_column and class_names_column are all empty; one of them must give captions"
            )
        return self
