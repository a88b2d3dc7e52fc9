"""Scan for chat rows that cannot be used: broken images, missing responses, placeholders that do not fit, too long."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from tqdm.auto import tqdm
from transformers.utils import logging

from hf_chain.data.chat.encoder import ChatEncoder
from hf_chain.data.chat.rows import ChatSample, first_image_path, read_sample
from hf_chain.data.files import image_files_key
from hf_chain.data.quality import BadRow, QualityReport
from hf_chain.errors import HfChainError, reason
from hf_chain.images import MAX_IMAGE_PIXELS

logger = logging.get_logger(__name__)

_SCAN_BATCH = 256
_RULES = 5
"""What is bad has changed so often; a scan by older rules is not remembered."""
_ROLES = ("system", "user", "assistant")


def check_chat(
    rows: Dataset,
    encoder: ChatEncoder,
    *,
    name: str = "the data",
    max_bad_share: float = 0.01,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
    report_file: str | Path | None = None,
) -> Dataset:
    """Read and encode every row once, before training.

    The result is remembered in the `datasets` cache by the fingerprints of the data and of the encoder, and by the
    size and time of change of image files.

    Args:
        rows (`datasets.Dataset`): One split of `load_chat`.
        encoder (`ChatEncoder`): The collator's.
        name (`str`, *optional*): Name of the split in messages.
        max_bad_share (`float`, *optional*, defaults to 0.01): Share of bad rows above which it stops.
        max_image_pixels (`int`, *optional*): Pixels above which an image is not read and its row is bad.
        report_file (`str` or `pathlib.Path`, *optional*): Where to write the list of bad rows, if there are any.

    Returns:
        `datasets.Dataset`: The rows that can be used, each with its `length` in tokens, which is where
        `train_sampling_strategy="group_by_length"` looks for it.

    Raises:
        `HfChainError`: Where more than `max_bad_share` of the rows are bad.
    """
    parts = f"{_RULES} {rows._fingerprint} {encoder.fingerprint} {image_files_key(rows, 'images')} {max_image_pixels}"
    key = hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()
    remembered = Path(datasets.config.HF_DATASETS_CACHE) / "hf_chain" / "chat_quality" / f"{key}.json"
    known = remembered.exists()
    if known:
        content = json.loads(remembered.read_text(encoding="utf-8"))
        lengths, bad = content["lengths"], [BadRow(**entry) for entry in content["bad"]]
    else:
        lengths, bad = _scan(rows, encoder, name, max_image_pixels)
    report = QualityReport(len(lengths), bad)
    if bad and report_file is not None:
        report.write(report_file)
    report.check(name, max_bad_share, report_file)
    # A scan that stops the run is not remembered: what it complains about is to be mended.
    if not known:
        _remember(remembered, {"lengths": lengths, "bad": [asdict(entry) for entry in bad]})
    return rows.add_column("length", lengths).select(report.good_indices)


def check_row(
    number: int, row: Mapping[str, Any], encoder: ChatEncoder, max_image_pixels: int = MAX_IMAGE_PIXELS
) -> tuple[int, BadRow | None]:
    """Read and encode one row and look for problems.

    Args:
        number (`int`): Row number; in a stream, how many came before.
        row (`Mapping`): The row, with its images not decoded.
        encoder (`ChatEncoder`): Writes the conversation.
        max_image_pixels (`int`, *optional*): Pixels above which an image is not read.

    Returns:
        `tuple[int, BadRow | None]`: Tokens of the row, 0 where it cannot be used, and the problem, where there is one.
    """
    return _judge(number, row, _try_reading(row, max_image_pixels), encoder)


def _judge(
    number: int, row: Mapping[str, Any], sample: ChatSample | Exception, encoder: ChatEncoder
) -> tuple[int, BadRow | None]:
    path = first_image_path(row)
    if isinstance(sample, Exception):
        problem = reason(sample)
        if isinstance(sample, FileNotFoundError):
            problem = "there is no such image: image_folder names the folder that relative paths start from"
        elif not isinstance(sample, HfChainError):
            problem = f"an image cannot be read, {problem}"
        return 0, BadRow(number, path, problem, usable=False)
    messages = sample.messages
    try:
        if not messages:
            raise ValueError("there are no messages")
        for place, message in enumerate(messages):
            if message["role"] not in _ROLES:
                raise ValueError(f"message {place} has the role {message['role']!r}")
        encoded = encoder.encode(messages, sample.images)
    except ValueError as error:
        return 0, BadRow(number, path, str(error), usable=False)
    problems = [f"message {place} is empty" for place, message in enumerate(messages) if not message["content"]]
    if messages[-1]["role"] != "assistant":
        problems.append("the last message has no response")
    if encoded.whole_length > len(encoded.input_ids):
        problems.append(f"it has {encoded.whole_length} tokens and is cut at {len(encoded.input_ids)}")
    return len(encoded.input_ids), BadRow(number, path, ", ".join(problems), usable=True) if problems else None


def _try_reading(row: Mapping[str, Any], most: int) -> ChatSample | Exception:
    try:
        return read_sample(row, most)
    except Exception as error:  # Pillow's decoders raise errors of every kind.
        return error


def _scan(rows: Dataset, encoder: ChatEncoder, name: str, most_pixels: int) -> tuple[list[int], list[BadRow]]:
    lengths: list[int] = []
    found: list[BadRow] = []
    with ThreadPoolExecutor() as threads, tqdm(total=len(rows), desc=f"Checking {name}", unit="row") as bar:
        for start in range(0, len(rows), _SCAN_BATCH):
            numbers = range(start, min(start + _SCAN_BATCH, len(rows)))
            batch = [rows[number] for number in numbers]
            samples = threads.map(partial(_try_reading, most=most_pixels), batch)
            # Decoding gains from threads; a tokenizer belongs to one.
            for number, row, sample in zip(numbers, batch, samples, strict=True):
                length, bad = _judge(number, row, sample, encoder)
                lengths.append(length)
                found += [bad] if bad is not None else []
            bar.update(len(batch))
    return lengths, found


def _remember(path: Path, content: dict[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        logger.warning(f"the next run checks the data again: {path} cannot be written, {error.strerror}")
