"""Describing a picture, from images with captions or from captions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from datasets import Dataset

from hf_chain.data.captions import CaptionReader
from hf_chain.data.chat.questions import Turn
from hf_chain.data.chat.rows import FEATURES
from hf_chain.data.settings import DataSettings

DESCRIBE = "Describe the picture."
CAPTION_KIND = "caption"
"""Kind of the rows that ask for a description, by which the evaluation knows them."""


@dataclass(frozen=True)
class CaptionQuestions:
    """Asks for a description: one row for each caption in training, one with all captions in evaluation.

    Args:
        settings (`DataSettings`): Which column holds the captions.
    """

    settings: DataSettings

    def turns(self, row: Mapping[str, Any], random: Random, training: bool) -> list[Turn]:
        """Return one question for each caption, or one with every caption as an answer.

        An empty caption makes an empty response, which the scan for bad rows reports.
        """
        captions, problems = CaptionReader(self.settings).captions(row)
        if training:
            return [Turn(DESCRIBE, caption, CAPTION_KIND) for caption in [*captions, *[""] * len(problems)]]
        return [Turn(DESCRIBE, captions[0], CAPTION_KIND, tuple(captions[1:]))] if captions else []

    def description(self, row: Mapping[str, Any], turns: Sequence[Turn], random: Random) -> str:
        """Describe the picture by the very caption that is asked for: a language model sees nothing else of it."""
        return turns[0].answer


def describe_lines(lines: Dataset) -> Dataset:
    """Ask to describe a picture that is described in words, for every line of a text file.

    Args:
        lines (`datasets.Dataset`): With a column `text`; empty lines are left out.

    Returns:
        `datasets.Dataset`: Chat rows as `FEATURES` describes them.
    """
    filled = lines.filter(_has_text)
    return filled.map(_describe_line, remove_columns=filled.column_names, features=FEATURES)


def _has_text(row: Mapping[str, Any]) -> bool:
    return bool(row["text"] and row["text"].strip())


def _describe_line(row: Mapping[str, Any]) -> dict[str, Any]:
    caption = row["text"].strip()
    messages = [
        {"role": "user", "content": f"{caption}\n{DESCRIBE}"},
        {"role": "assistant", "content": caption},
    ]
    return {"messages": messages, "images": [], "kind": CAPTION_KIND, "answers": [], "negatives": ""}
