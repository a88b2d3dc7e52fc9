"""Text that cuts are chosen and translators are fitted on: also conversations about images, without the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hf_chain.data.chat.rows import plain_messages, without_images
from hf_chain.data.text.rows import Row, read_rows

CONVERSATIONS = ("messages", "conversations")
"""Columns that hold one."""


@dataclass(frozen=True)
class TextAlone:
    """Rows as `token_batches` takes them, with image placeholders left out of conversations.

    What is said about an image is text like any other, and enough of it to see how a language model predicts.

    Args:
        rows (`Iterable`): texts, or mappings with a column `text`, `messages` or LLaVA's `conversations`. Can be gone
            through again where they can.
        name (`str`): what they are called in an error.
    """

    rows: Iterable[Row]
    name: str

    def __iter__(self) -> Iterator[Row]:
        return map(_text_alone, read_rows(self.rows, self.name))


def _text_alone(row: Row) -> Row:
    if isinstance(row, str):
        return row
    column = next((name for name in CONVERSATIONS if name in row), None)
    return row if column is None else {"messages": without_images(plain_messages(row[column]))}
