"""LLaVA-style JSON: a list of conversations with paths of images in a folder. ShareGPT calls them `images`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset, ReadInstruction

from hf_chain.data.chat.rows import FEATURES, RULES, check_row_is_read, plain_messages, stored_images
from hf_chain.data.chat.settings import ChatDataSettings
from hf_chain.errors import HfChainError, reason, shortened
from hf_chain.files import as_pattern
from hf_chain.images import check_regular_file

_CHUNK = 1 << 20
_LOOKED_AT = 100
"""Entries that tell LLaVA-style JSON from other JSON: the first of them may be bad."""
_READ = ("id", "image", "images", "conversations")
_GAP = re.compile(r"[\s,]*")


def llava_files(settings: ChatDataSettings) -> dict[str, list[str]] | None:
    """Return the files of each split where the source is LLaVA-style JSON, or `None`.

    The split `train` is the source itself, a file or a pattern, unless `data_files` says otherwise.
    """
    if Path(settings.source).suffix not in (".json", ".jsonl"):
        return None
    files = settings.data_files if settings.data_files is not None else settings.source
    by_split = files if isinstance(files, dict) else {"train": files}
    found = {
        split: [
            file
            for pattern in ([names] if isinstance(names, str) else names)
            for file in sorted(glob(as_pattern(pattern)))
        ]
        for split, names in by_split.items()
    }
    first = next((file for names in found.values() for file in names), None)
    entries = islice(json_entries(Path(first)), _LOOKED_AT) if first is not None else ()
    return found if any(isinstance(entry, dict) and "conversations" in entry for entry in entries) else None


def load_llava(
    settings: ChatDataSettings, files: dict[str, list[str]], seed: int
) -> dict[str, Dataset | IterableDataset]:
    """Load the splits of LLaVA-style files.

    Args:
        settings (`ChatDataSettings`): Names of the splits.
        files (`dict[str, list[str]]`): Files of each split.
        seed (`int`): Seed of the training subset and of a stream's order.

    Raises:
        `HfChainError`: Where a split does not exist, or a file is no JSON.
    """
    wanted = {"train": settings.train_split, **{name: name for name in settings.test_splits}}
    if settings.validation_split is not None:
        wanted["validation"] = settings.validation_split
    splits = {role: _split(split, files, settings) for role, split in wanted.items()}
    train, most = splits["train"], settings.max_train_samples
    if isinstance(train, IterableDataset):
        shuffled = train.shuffle(seed=seed, buffer_size=settings.shuffle_buffer)
        splits["train"] = shuffled if most is None else shuffled.take(most)
    elif most is not None and most < len(train):
        splits["train"] = train.shuffle(seed=seed).select(range(most))
    return splits


def _split(split: str, files: dict[str, list[str]], settings: ChatDataSettings) -> Dataset | IterableDataset:
    name = split.partition("[")[0]
    if not files.get(name):
        raise HfChainError(
            f"split {split!r} is not in {settings.source}; it has {', '.join(files)}: name its file in data_files, or "
            "take a slice such as train[95%:]"
        )
    if settings.streaming:
        if name != split:
            raise HfChainError(f"split {split!r} is a slice of a stream; name files in data_files instead")
        options = {"files": files[name], "image_folder": settings.image_folder}
        return IterableDataset.from_generator(llava_rows, features=FEATURES, gen_kwargs=options)
    stamps = [f"{RULES}/{Path(file).stat().st_mtime_ns}/{Path(file).stat().st_size}" for file in files[name]]
    options = {"files": files[name], "image_folder": settings.image_folder, "stamps": stamps}
    try:
        rows = Dataset.from_generator(llava_rows, features=FEATURES, gen_kwargs=options)
    except Exception as error:  # `datasets` wraps what the generator raises.
        cause = error.__cause__ or error
        if isinstance(cause, HfChainError):
            raise cause from None
        raise HfChainError(f"{settings.source} cannot be loaded, {reason(cause)}") from error
    if name == split:
        return rows
    try:
        (part,) = ReadInstruction.from_spec(split).to_absolute({name: len(rows)})
    except (AssertionError, ValueError) as error:
        raise HfChainError(f"split {split!r} is no slice, {error}; write one such as train[95%:]") from error
    return rows.select(range(part.from_ or 0, len(rows) if part.to is None else part.to))


def llava_rows(
    files: Sequence[str], image_folder: str | None = None, stamps: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the rows of LLaVA-style files, `[{"id", "image", "conversations": [{"from", "value"}]}]` or JSON lines.

    Files are read in pieces, so that memory does not grow with them.

    Args:
        files (`Sequence[str]`): Files to read.
        image_folder (`str`, *optional*): Folder that image paths start from; each file's own by default.
        stamps (`Sequence[str]`, *optional*): Only key the cache.

    Yields:
        `dict`: A row as `FEATURES` describes it, its images not read.

    Raises:
        `HfChainError`: Where a file is no JSON, or is cut short.
    """
    for file in files:
        folder = Path(image_folder) if image_folder is not None else Path(file).parent
        for entry in json_entries(Path(file)):
            entry = entry if isinstance(entry, dict) else {}
            one, several = entry.get("image"), entry.get("images")
            if one and several:
                raise HfChainError(f"{file} has an entry with image and images, {shortened(entry)}: leave one of them")
            images = one or several or []
            check_row_is_read(entry | {"images": images}, _READ, "images", str(file))
            yield {
                "messages": plain_messages(entry.get("conversations")),
                "images": stored_images(images, folder),
                "kind": "",
                "answers": [],
                "negatives": "",
            }


def json_entries(file: Path) -> Iterator[Any]:
    """Yield the entries of a JSON array, or of JSON lines, without reading the file at once.

    Raises:
        `HfChainError`: Where the file is no JSON, or is cut short.
    """
    decoder = json.JSONDecoder()
    rows = 0
    try:
        check_regular_file(str(file))
        with open(file, encoding="utf-8-sig") as stream:
            text = stream.read(_CHUNK)
            offset = _skip(text, 0)
            array = text.startswith("[", offset)
            offset += array
            while True:
                offset = _skip(text, offset)
                if array and text.startswith("]", offset):
                    return
                try:
                    entry, offset = decoder.raw_decode(text, offset)
                except json.JSONDecodeError:
                    more = stream.read(max(_CHUNK, len(text) - offset))
                    if not more and offset == len(text) and not array:
                        return
                    if not more:
                        raise HfChainError(f"{file} is no JSON or cut short after {rows} rows; restore it") from None
                    text, offset = text[offset:] + more, 0
                else:
                    rows += 1
                    yield entry
    except HfChainError:
        raise
    except (OSError, ValueError) as error:
        raise HfChainError(f"{file} cannot be read, {error}; check the path and that it is UTF-8") from error


def _skip(text: str, offset: int) -> int:
    found = _GAP.match(text, offset)
    return found.end() if found else offset
