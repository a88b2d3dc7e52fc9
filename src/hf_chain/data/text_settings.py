"""The `data` section of a recipe for language models: where texts come from, and the rows that they fill."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from hf_chain.data.settings import SourceSettings
from hf_chain.settings import LARGEST_SEED, Settings

STORIES = "stories"
"""The source that is written here, by `hf_chain.data.stories`."""
LONGEST_ROW = 1 << 20
MOST_STORIES = 10_000_000
"""They are written into memory before the first is read."""


class StoriesSettings(Settings):
    """Sizes and seed of the stories that are written here."""

    train: int = Field(20_000, ge=1, le=MOST_STORIES, description="Stories in the train split.")
    validation: int = Field(500, ge=1, le=MOST_STORIES, description="Stories in the validation split.")
    test: int = Field(500, ge=1, le=MOST_STORIES, description="Stories in the test split.")
    compositional: int = Field(
        500, ge=1, le=MOST_STORIES, description="Stories of colour and thing pairs held out of training."
    )
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seed of the stories, apart from the training seed.")

    def sizes(self) -> dict[str, int]:
        """Return the number of stories of each split."""
        return {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
            "compositional": self.compositional,
        }


class TextSettings(SourceSettings):
    """Source, column and rows of texts. A row of the source is a document; the model sees packed rows."""

    source: str = Field(
        description="`stories` (written here, no download), a Hub name, a local folder, a file or glob (parquet, "
        "json, csv, txt), or a `datasets` format such as `text` with `data_files`.",
    )
    text_column: str = Field("text", description="Column that holds the documents.")
    sample_by: Literal["line", "paragraph", "document"] = Field(
        "line", description="What is a document in `.txt` files: each line, each paragraph, or a whole file."
    )
    row_tokens: int = Field(
        512,
        ge=2,
        le=LONGEST_ROW,
        description="Tokens L of a row. Documents follow each other, each ended by the end-of-text token, and are cut "
        "into rows without padding; what fills no row at the end of a split is left out.",
    )
    samples_per_epoch: int | None = Field(
        None, ge=1, description="Training rows an epoch: needed for streams, and to plan without the data at hand."
    )
    max_train_samples: int | None = Field(
        None, ge=1, description="Train on this many rows, which documents in a seeded random order fill."
    )
    stories: StoriesSettings = Field(
        default_factory=StoriesSettings, description="The stories, for `source: stories`."
    )

    @model_validator(mode="before")
    @classmethod
    def _stories_bring_their_splits(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("source") == STORIES:
            return {"test_splits": ["test", "compositional"], **values}
        return values

    @model_validator(mode="after")
    def _a_stream_has_an_end(self) -> TextSettings:
        if not self.streaming:
            return self
        if self.source == STORIES:
            raise ValueError(f"streaming is true for source {STORIES!r}, which are written here; set it to false")
        if self.max_train_samples is not None:
            raise ValueError("max_train_samples is set for a stream; say in samples_per_epoch how much of it is read")
        return self
