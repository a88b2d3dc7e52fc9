"""Rows of text or chats as batches of tokens, for a language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset, load_from_disk
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_chain.data.chat import ChatEncoder
from hf_chain.data.chat.rows import plain_messages
from hf_chain.data.files import by_name
from hf_chain.errors import HfChainError, reason_behind
from hf_chain.losses.response import IGNORED

logger = logging.get_logger(__name__)


Row = str | Mapping[str, Any]
"""A text, or a mapping that holds one or a conversation."""

_FORMATS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv", ".arrow": "arrow"}


def stream_rows(source: str | Path, split: str) -> Iterable[Row]:
    """Open a source without reading it; local files never need the network.

    Args:
        source (`str` or `Path`): A file (JSON, JSON lines, parquet, CSV, arrow; any other is text with one sample a
            line), a folder of such files, a folder written by `save_to_disk`, or a name on the Hub.
        split (`str`): The split; a file has none.

    Raises:
        `HfChainError`: Where it cannot be opened; the message is one line.
    """
    path = Path(source).expanduser()
    try:
        if (path / "state.json").exists():
            return load_from_disk(str(path))
        if (path / "dataset_dict.json").exists():
            return load_from_disk(str(path))[split]
        if path.is_file():
            kind = _FORMATS.get(path.suffix, "text")
            return load_dataset(**by_name(kind, data_files=str(path)), split="train", streaming=True)
        return load_dataset(**by_name(str(path) if path.is_dir() else str(source)), split=split, streaming=True)
    except Exception as error:  # Each format and the Hub raise errors of their own.
        raise HfChainError(
            f"split {split!r} of {source} cannot be opened, {reason_behind(error)}; check path, split and network"
        ) from error


def read_rows(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """Read rows; streams find out only now whether their files are whole.

    Args:
        rows (`Iterable`): An open source.
        name (`str`): What it is called in an error.

    Raises:
        `HfChainError`: Where a row cannot be read; the message is one line.
    """
    try:
        yield from rows
    except HfChainError:
        raise
    except Exception as error:
        raise HfChainError(f"{name} cannot be read to its end, {reason_behind(error)}; mend its files") from error


Sample = tuple[list[int], list[int]]
"""Token ids and labels."""


def token_batches(
    source: str | Path | Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int = 8,
    max_tokens: int = 512,
    max_samples: int | None = None,
    split: str = "train",
    column: str | None = None,
    responses_only: bool = False,
) -> TokenBatches:
    """Stream texts or conversations as batches of token ids, in the order of the source.

    Args:
        source (`str`, `Path` or `Iterable`): A text file with one sample a line, a file, folder or Hub name that
            `datasets` reads, or the rows themselves: texts or mappings, such as a `datasets.Dataset`.
        tokenizer (`PreTrainedTokenizerBase`): The model's; conversations need its chat template.
        batch_size (`int`, *optional*, defaults to 8): Samples in a batch.
        max_tokens (`int`, *optional*, defaults to 512): Tokens from which on a sample is cut.
        max_samples (`int`, *optional*): Samples to stop after; skipped rows are none.
        split (`str`, *optional*, defaults to `"train"`): Split of a source that has several.
        column (`str`, *optional*): Column of texts or of conversations; `messages` or else `text` by default.
        responses_only (`bool`, *optional*, defaults to `False`): Add `labels`, which are -100 outside of responses.

    Returns:
        `TokenBatches`: Can be iterated again where the source can.

    Raises:
        `HfChainError`: Where the source cannot be opened; while iterating, where it cannot be read, the column or the
            chat template is missing, or no row can be used.
    """
    rows = stream_rows(source, split) if isinstance(source, str | Path) else source
    name = str(source) if isinstance(source, str | Path) else "the given rows"
    return TokenBatches(rows, tokenizer, batch_size, max_tokens, max_samples, column, responses_only, name)


@dataclass
class TokenBatches:
    """Batches `{"input_ids", "attention_mask", maybe "labels"}` of int64 `[B, T]`, padded on the right.

    The fields are what `token_batches` was given. `skipped` counts the rows that the last pass left out, by reason.
    """

    rows: Iterable[Row]
    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    max_tokens: int
    max_samples: int | None
    column: str | None
    responses_only: bool
    name: str
    skipped: Counter[str] = field(default_factory=Counter, init=False)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        before, self.skipped = self.skipped, Counter()
        samples = islice(self._samples(), self.max_samples)
        count = 0
        while batch := list(islice(samples, self.batch_size)):
            count += len(batch)
            yield self._padded(batch)
        reasons = ", ".join(f"{rows} {reason}" for reason, rows in self.skipped.items()) or "there is none"
        if not count:
            raise HfChainError(f"{self.name} has no row that can be used, {reasons}: give others")
        if self.skipped and self.skipped != before:
            logger.warning(f"{self.skipped.total()} rows of {self.name} were skipped: {reasons}")

    @cached_property
    def _encoder(self) -> ChatEncoder:
        return ChatEncoder(self.tokenizer, max_length=self.max_tokens)

    def _samples(self) -> Iterator[Sample]:
        """Every row that can be used."""
        for row in read_rows(self.rows, self.name):
            value = self._value(row)
            if isinstance(value, str) or value is None:
                sample = self._encode_text(value or "")
            else:
                sample = self._encode_conversation(value)
            if sample is not None:
                yield sample

    def _value(self, row: Row) -> Any:
        if isinstance(row, str):
            return row
        column = self.column or next((name for name in ("messages", "text") if name in row), "text")
        if column not in row:
            raise HfChainError(f"{self.name} has no column {column!r}; its columns are {', '.join(row)}: set column")
        return row[column]

    def _encode_text(self, text: str) -> Sample | None:
        if self.responses_only:
            raise HfChainError(f"{self.name} holds texts, in which nothing is a response: leave responses_only out")
        ids = self.tokenizer(text.strip(), truncation=True, max_length=self.max_tokens)["input_ids"]
        if not text.strip() or len(ids) < 2:
            self.skipped["empty"] += 1
            return None
        return ids, ids

    def _encode_conversation(self, value: Any) -> Sample | None:
        messages = plain_messages(value)
        if not any(message["content"] for message in messages):
            self.skipped["empty"] += 1
            return None
        encoder = self._encoder
        try:
            encoded = encoder.encode(messages)
        except ValueError as error:
            logger.info(f"a row of {self.name} is skipped, {error}")
            self.skipped["without a response that can be used"] += 1
            return None
        return encoded.input_ids, encoded.labels

    def _padded(self, samples: list[Sample]) -> dict[str, torch.Tensor]:
        ids, labels = ([torch.tensor(values) for values in part] for part in zip(*samples, strict=True))
        batch = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id or 0),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        }
        if self.responses_only:
            batch["labels"] = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        return batch
