"""Texts as packed rows of tokens, without padding: a map-style data set and a stream."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import xxhash
from datasets import Dataset, IterableDataset
from filelock import FileLock
from torch.utils import data
from transformers import PreTrainedTokenizerBase

from hf_chain.data.streams import RowStream
from hf_chain.data.text_settings import TextSettings
from hf_chain.errors import HfChainError, reason
from hf_chain.files import sync

CHARACTERS = 1 << 20
"""Characters that are tokenized at once: tokens are Python's numbers until they are written."""
BLOCK = 1 << 22
"""Tokens that are looked at together."""


class PackedTextDataset(data.Dataset):
    """Rows of L tokens, cut from the documents of a split in their order: the same ones in every process.

    Documents are tokenized once, each ended by the end-of-text token, into a memory-mapped file beside the caches of
    `datasets`. Tokens see what stands before them in their row, be it of another document. Item i is
    `{"input_ids": int64 [L], "row_ids": i}`.

    Args:
        dataset (`datasets.Dataset`): One split of documents.
        settings (`TextSettings`): Their column, and the length of a row.
        tokenizer (`PreTrainedTokenizerBase`): One with an end-of-text token.
        training (`bool`, *optional*, defaults to `True`): Whether `max_train_samples` limits the rows.

    Raises:
        `HfChainError`: Where the column or the end-of-text token is missing, a document is no text, the file cannot be
            written, or the documents fill no row.

    Example:
        ```python
        >>> settings = TextSettings(source="books/", row_tokens=512)
        >>> rows = PackedTextDataset(load_splits(settings)["train"], settings, tokenizer)
        >>> rows[0]["input_ids"].shape
        torch.Size([512])
        ```
    """

    def __init__(
        self, dataset: Dataset, settings: TextSettings, tokenizer: PreTrainedTokenizerBase, training: bool = True
    ) -> None:
        _check(dataset, settings, tokenizer)
        self.settings = settings
        self._most = settings.max_train_samples if training else None
        # Two bytes a token do for most vocabularies that small models have.
        self._type = np.dtype(np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32)
        self._file = self._packed(dataset, tokenizer)
        if not len(self):
            raise HfChainError(
                f"the documents of {settings.source} fill no row of {settings.row_tokens} tokens: lower row_tokens"
            )

    @property
    def row_tokens(self) -> int:
        """Tokens L of a row."""
        return self.settings.row_tokens

    @cached_property
    def tokens(self) -> np.ndarray:
        """All rows, memory-mapped: unsigned integers, shape `[rows, L]`."""
        count = self._file.stat().st_size // (self._type.itemsize * self.row_tokens)
        shape = (count, self.row_tokens)
        return np.memmap(self._file, self._type, "r", shape=shape) if count else np.empty(shape, self._type)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all rows, equal in every process."""
        digest = xxhash.xxh3_128(str(self.tokens.shape).encode())
        for start in range(0, len(self), step := max(1, BLOCK // self.row_tokens)):
            digest.update(self.tokens[start : start + step].astype(np.uint32).tobytes())
        return digest.hexdigest()

    def set_epoch(self, epoch: int) -> None:
        """Does nothing: rows are the same in every epoch, in an order that the trainer draws."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        index = range(len(self))[index]
        row = torch.from_numpy(self.tokens[index].astype(np.int64))
        return {"input_ids": row, "row_ids": torch.tensor(index)}

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned maps the file itself, instead of getting a copy of it.
        return {name: value for name, value in vars(self).items() if name != "tokens"}

    def __repr__(self) -> str:
        return f"PackedTextDataset({len(self)} rows of {self.row_tokens} tokens of {self.settings.source})"

    def _packed(self, dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> Path:
        """The file of all rows, written by the first process that needs it."""
        settings = self.settings
        parts = (dataset._fingerprint, settings.text_column, settings.row_tokens, self._most, self._type.name)
        key = hashlib.blake2b(repr(parts).encode(), digest_size=16)
        key.update(_tokenizer_state(tokenizer))
        folder = Path(datasets.config.HF_DATASETS_CACHE) / "hf_chain" / "text_rows"
        path = folder / f"{key.hexdigest()}.bin"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    self._write(path, dataset, tokenizer)
        except OSError as error:
            raise HfChainError(f"{path} cannot be written, {reason(error)}: free the disk, or set HF_HOME") from error
        return path

    def _write(self, path: Path, dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> None:
        unfinished = path.with_suffix(f".{os.getpid()}")
        written, most = 0, None if self._most is None else self._most * self.row_tokens
        try:
            with unfinished.open("wb") as file:
                for tokens in tokenized(dataset.select_columns([self.settings.text_column]), self.settings, tokenizer):
                    np.array(tokens, dtype=self._type).tofile(file)
                    written += len(tokens)
                    if most is not None and written >= most:
                        break
                whole = written - written % self.row_tokens
                file.truncate((whole if most is None else min(most, whole)) * self._type.itemsize)
            sync(unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


class PackedTextStream(RowStream):
    """The same rows of a stream of documents, `{"input_ids": int64 [L]}`; what fills no row where it ends is left out.

    Processes share it by lanes, as they share an `ImageTextStream`.

    Args:
        dataset (`datasets.IterableDataset`): One split of documents.
        settings (`TextSettings`): Their column, and the length of a row.
        tokenizer (`PreTrainedTokenizerBase`): One with an end-of-text token.

    Raises:
        `HfChainError`: Where the column or the end-of-text token is missing; while rows are read, where a document is
            no text.
    """

    def __init__(self, dataset: IterableDataset, settings: TextSettings, tokenizer: PreTrainedTokenizerBase) -> None:
        _check(dataset, settings, tokenizer)
        super().__init__()
        self.settings, self.tokenizer = settings, tokenizer
        self._rows = dataset.select_columns([settings.text_column])
        self._tokens: list[int] = []
        self._place = 0
        self._first: list[int] = []

    @property
    def row_tokens(self) -> int:
        """Tokens L of a row."""
        return self.settings.row_tokens

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands, and what of the documents read has filled no row yet."""
        return super().state_dict() | {"left": self._tokens[self._place :]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        super().load_state_dict(state)
        self._first = list(state["left"])

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        length = self.row_tokens
        first, self._first = self._first, []
        self._tokens, self._place = [], 0
        # One document at a time, so that what was read and what is left say where the stream stands.
        for tokens in chain([first], (found for row in self._rows for found in self._tokenized(row))):
            self._tokens, self._place = self._tokens[self._place :] + tokens, 0
            while len(self._tokens) - self._place >= length:
                row = torch.tensor(self._tokens[self._place : self._place + length])
                self._place += length
                yield {"input_ids": row}
        self._tokens, self._place = [], 0

    def _tokenized(self, row: Mapping[str, Any]) -> Iterator[list[int]]:
        return tokenized([row], self.settings, self.tokenizer)


def tokenized(
    rows: Iterable[Mapping[str, Any]], settings: TextSettings, tokenizer: PreTrainedTokenizerBase
) -> Iterator[list[int]]:
    """Tokens of documents, several at a time, each ended by the end-of-text token; empty ones are passed over.

    Args:
        rows (`Iterable[Mapping]`): Documents.
        settings (`TextSettings`): Their column.
        tokenizer (`PreTrainedTokenizerBase`): One with an end-of-text token.

    Raises:
        `HfChainError`: For a document that is no text.
    """
    end = tokenizer.eos_token_id
    for texts in _batches(rows, settings):
        encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        yield [token for ids in encoded["input_ids"] for token in (*ids, end)]


def _batches(rows: Iterable[Mapping[str, Any]], settings: TextSettings) -> Iterator[list[str]]:
    texts: list[str] = []
    characters = 0
    for number, row in enumerate(rows):
        text = row[settings.text_column]
        if text is None or text == "":
            continue
        if not isinstance(text, str):
            raise HfChainError(
                f"document {number} of {settings.source} is a {type(text).__name__}, no text: set text_column"
            )
        texts.append(text)
        characters += len(text)
        if characters >= CHARACTERS:
            yield texts
            texts, characters = [], 0
    if texts:
        yield texts


def collate_rows(samples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stacks B packed rows.

    Args:
        samples (`Sequence[Mapping]`): Rows of `PackedTextDataset` or `PackedTextStream`.

    Returns:
        `dict[str, torch.Tensor]`: `input_ids` `[B, L]` and, where rows have them, `row_ids` `[B]`.
    """
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def _check(rows: Any, settings: TextSettings, tokenizer: PreTrainedTokenizerBase) -> None:
    check_text_column(rows, settings)
    if tokenizer.eos_token_id is None:
        raise HfChainError("the tokenizer has no end-of-text token, which documents end with: give it an eos_token")


def check_text_column(rows: Any, settings: TextSettings) -> None:
    """Refuses a split without the column of documents."""
    columns = rows.column_names
    if columns is not None and settings.text_column not in columns:
        raise HfChainError(
            f"text_column {settings.text_column!r} is not in {settings.source}; its columns are {', '.join(columns)}: "
            "set text_column"
        )


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> bytes:
    """What of a tokenizer its tokens depend on."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = {"vocabulary": sorted(tokenizer.get_vocab().items())} if backend is None else json.loads(backend.to_str())
    # Left from the last call, and set by each.
    state |= {"truncation": None, "padding": None}
    return f"{type(tokenizer).__name__} {tokenizer.eos_token_id} {json.dumps(state)}".encode()
