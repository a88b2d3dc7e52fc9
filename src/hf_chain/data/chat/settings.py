"""The `data` section of a grafting recipe: where conversations come from."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hf_chain.data.settings import DataSettings, ScenesSettings
from hf_chain.errors import HfChainError
from hf_chain.images import MAX_IMAGE_PIXELS
from hf_chain.settings import Settings, expanded


@dataclass(frozen=True)
class ResponseReweighting:
    """Weight w = (log(n + 1) / log(N + 1))^-order of the tokens of a response of n tokens, at least 1.

    n counts the tokens of the response's content, without header and end mark, so that it does not depend on which
    tokens are in the loss. The reference divides by a maximum; here it is that of a fixed N, as the maximum of a batch
    would make the loss depend on the batch. Text-only conversations have weight 1.

    Args:
        order (`float`): How steep; 0 gives weight 1 to every response.
        longest (`int`): Tokens N from which on a response has weight 1.

    Source:
        Zero-shot vision encoder grafting, arXiv 2505.22664, official code.
    """

    order: float = 1.0
    longest: int = 256

    def __post_init__(self) -> None:
        if self.order < 0:
            raise HfChainError(f"order of the response re-weighting is {self.order:g}; it must be 0 or more")
        if self.longest < 1:
            raise HfChainError(f"longest of the response re-weighting is {self.longest}; it must be 1 or more")

    def weight(self, tokens: int) -> float:
        """Return the weight of a response of `tokens` tokens; an empty one counts as one token."""
        return max(1.0, (log(max(1, tokens) + 1) / log(self.longest + 1)) ** -self.order)


QUESTION_SOURCES = ("scenes", "labelled-images", "captions")
_TEXT = "-text"
_SPLIT_FIELDS = ("train_split", "validation_split", "test_splits", "streaming", "shuffle_buffer", "max_train_samples")


class ChatDataSettings(Settings):
    """Source of conversations, and how questions are made where the source has none."""

    source: str = Field(
        "scenes",
        description="`scenes`, `labelled-images` or `captions` (questions made about images), each also with `-text` "
        "(a description in words in place of the image); a LLaVA-style JSON file; or a Hub name, local folder or "
        "file (parquet, jsonl) with `messages` and `images`.",
    )
    config_name: str | None = Field(None, description="Configuration of a Hub data set that has several.")
    data_files: str | list[str] | dict[str, str | list[str]] | None = Field(
        None, description="Files to read, also by split; for `captions-text` text files with a caption on each line."
    )
    image_folder: str | None = Field(
        None, description="Folder that relative image paths start from; the source's own by default."
    )
    messages_column: str = Field("messages", description="Column that holds the conversation.")
    images_column: str = Field("images", description="Column that holds the image or images; may be absent.")
    train_split: str = Field("train", description="Split to train on; slices such as `train[:90%]` work.")
    validation_split: str | None = Field("validation", description="Split evaluated after every stage.")
    test_splits: list[str] = Field([], description="Further splits to evaluate, each under its own name.")
    streaming: bool = Field(False, description="Read the source as a stream instead of downloading it first.")
    shuffle_buffer: int = Field(1_000, ge=1, description="Rows held for shuffling a stream.")
    max_train_samples: int | None = Field(None, ge=1, description="Train on a seeded random subset of this size.")
    max_image_pixels: int = Field(
        MAX_IMAGE_PIXELS,
        ge=1,
        le=MAX_IMAGE_PIXELS,
        description="Pixels above which an image is not read and its row is bad; at most Pillow's own limit.",
    )
    max_bad_share: float = Field(0.01, ge=0, le=1, description="Share of bad rows above which the run stops.")

    images: DataSettings | None = Field(
        None, description="Images with labels or captions that questions are made about; its splits are those above."
    )
    scenes: ScenesSettings = Field(default_factory=ScenesSettings, description="The rendered scenes, for `scenes`.")
    facts: bool = Field(
        False,
        description="For `scenes`: ask as well for made-up names and homes of shapes and for sums, which no picture "
        "shows and a language model has to know.",
    )
    turns: int | None = Field(
        None,
        ge=0,
        description="Questions about one image in a training conversation, 0 for all of them. By default all for "
        "scenes, and one for labelled images, whose questions give each other's answers away.",
    )
    hard_negatives: int = Field(
        5, ge=2, description="Classes that popular and adversarial negatives are drawn from, for `labelled-images`."
    )
    confusion_file: str | None = Field(
        None,
        description="JSON file with a confusion matrix [true][predicted] that says which classes are adversarial; "
        "by default those with similar names.",
    )

    _paths = field_validator("source", "data_files", "image_folder", "confusion_file")(expanded)

    @property
    def questions(self) -> Literal["scenes", "labelled-images", "captions"] | None:
        """What questions are made about, or `None` where the source holds conversations."""
        name = self.source.removesuffix(_TEXT)
        return name if name in QUESTION_SOURCES else None  # type: ignore[return-value]

    @property
    def described(self) -> bool:
        """Whether images are described in words."""
        return self.questions is not None and self.source.endswith(_TEXT)

    def image_settings(self) -> DataSettings:
        """Return the settings of the images that questions are made about, with the splits of these."""
        values = (
            {"source": "scenes", "scenes": self.scenes}
            if self.questions == "scenes"
            else {name: getattr(self.images, name) for name in self.images.model_fields_set}
            if self.images is not None
            else {}
        )
        return DataSettings(**{**values, **self.split_values()})

    @property
    def training_turns(self) -> int:
        """Questions in a training conversation, 0 for all about one image."""
        # Each caption of an image answers the same question.
        own = {"captions": 1, "labelled-images": 1 if self.turns is None else self.turns}
        return own.get(self.questions or "", self.turns or 0)

    def split_values(self) -> dict[str, Any]:
        """Return the fields that choose splits and rows, as `DataSettings` takes them."""
        return {name: getattr(self, name) for name in _SPLIT_FIELDS}

    @model_validator(mode="before")
    @classmethod
    def _scenes_bring_their_splits(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("source", "scenes") in ("scenes", f"scenes{_TEXT}"):
            return {"test_splits": ["test", "compositional"], **values}
        return values

    @model_validator(mode="after")
    def _questions_have_images(self) -> ChatDataSettings:
        if not self.source.strip():
            raise ValueError("source is empty; give scenes, a LLaVA-style JSON file, a Hub name or a local folder")
        if self.images is not None and self.questions not in ("labelled-images", "captions"):
            raise ValueError(f"images is given for source {self.source!r}; only labelled-images and captions use it")
        if self.facts and self.questions != "scenes":
            raise ValueError(f"facts is true for source {self.source!r}, and they are about scenes; unset it")
        if self.questions == "labelled-images" and (self.images is None or self.images.label_column is None):
            raise ValueError(f"source is {self.source!r} without images.label_column; say which images and classes")
        if self.questions == "labelled-images" and self.images is not None and self.images.source == "scenes":
            raise ValueError("images.source is 'scenes', which show more than their label; use source scenes")
        twice = sorted(self.images.model_fields_set & set(_SPLIT_FIELDS)) if self.images is not None else []
        # Scenes bring their test splits along.
        if twice and not (self.images is not None and self.images.source == "scenes"):
            raise ValueError(f"{twice[0]} is set under images; set it beside images instead")
        if self.questions == "captions":
            lines = self.described and self.data_files is not None
            if not lines and (self.images is None or self.images.caption_column is None):
                raise ValueError(
                    f"source is {self.source!r} without images.caption_column; say which images and texts"
                )
        if self.streaming and self.questions is not None:
            raise ValueError(f"streaming is true for source {self.source!r}, whose questions are made here; unset it")
        return self
