"""What a data set holds, in a few hashes: whether a run goes on with the data that it began with."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from datasets import ClassLabel, Dataset, IterableDataset

from hf_chain.data.captions import check_columns, used_columns, with_stored_images
from hf_chain.data.files import image_files_key
from hf_chain.data.settings import DataSettings
from hf_chain.data.sources import stream_files
from hf_chain.data.text_rows import check_text_column
from hf_chain.data.text_settings import TextSettings
from hf_chain.errors import HfChainError, reason
from hf_chain.files import write_json
from hf_chain.images import check_regular_file, is_remote, local_path

Fingerprint = dict[str, Any]
"""`rows` and hashes of `images`, `texts` (both in their order) and `content` (in any order); of a stream `files`,
`bytes` and a hash of their `names` and sizes."""

_ROWS = 200
_BLOCK = 1 << 20
_REQUESTS = 16
_REVISION = re.compile(r"@[0-9a-f]{40}")


def fingerprint_rows(
    rows: Dataset, image_column: str | None, text_columns: Sequence[str], look: bool = True
) -> Fingerprint:
    """Hash every image and text of a split, whatever order and however much of it there is.

    Images are hashed as they are stored: the bytes that the data set holds, or the whole file where it names one. The
    result is remembered in the `datasets` cache; files are read again when size, time of change or inode differ.

    Args:
        rows (`datasets.Dataset`): The split.
        image_column (`str`, *optional*): Column of images or lists of images.
        text_columns (`Sequence[str]`): Columns of captions, labels or conversations.
        look (`bool`, *optional*, defaults to `True`): Whether image files are looked at, to read changed ones again.
    """
    if image_column is not None:
        rows = with_stored_images(rows, image_column)
    remembered = _remembered(rows, image_column, text_columns, look)
    if remembered is not None and remembered.exists():
        return json.loads(remembered.read_text(encoding="utf-8"))
    images, texts, content = xxhash.xxh3_128(), xxhash.xxh3_128(), 0
    if names := _class_names(rows, text_columns):
        # Rows hold numbers, and captions are made of the names.
        texts.update(names)
        content += xxhash.xxh3_128_intdigest(names)
    table = rows.select_columns([*([image_column] if image_column else []), *text_columns]).with_format("arrow")
    with ThreadPoolExecutor() as threads:
        for batch in table.iter(_ROWS):
            found_images = (
                _image_digests(batch.column(image_column), threads) if image_column else repeat(b"", len(batch))
            )
            for image, text in zip(found_images, _text_digests(batch, text_columns), strict=True):
                images.update(image)
                texts.update(text)
                content += xxhash.xxh3_128_intdigest(image + text)
    found = {
        "rows": len(rows),
        "images": images.hexdigest(),
        "texts": texts.hexdigest(),
        "content": f"{content % (1 << 128):032x}",
    }
    if remembered is not None:
        _remember(remembered, found)
    return found


def fingerprint_files(files: Sequence[str]) -> Fingerprint:
    """Names and sizes of the files of a stream, which is too large to read for this.

    Args:
        files (`Sequence[str]`): Paths or addresses, in their order. A revision of the Hub is no part of the name, as a
            new one need not change the data.
    """
    with ThreadPoolExecutor(_REQUESTS) as threads:
        sizes = list(threads.map(_size, files))
    names = [f"{_REVISION.sub('', Path(file).name)} {size}" for file, size in zip(files, sizes, strict=True)]
    return {"files": len(files), "bytes": sum(sizes), "names": xxhash.xxh3_128_hexdigest("\n".join(names).encode())}


def fingerprint_pairs(rows: Dataset | IterableDataset, settings: DataSettings, split: str) -> Fingerprint:
    """Fingerprint of a split of image-text pairs.

    Args:
        rows (`datasets.Dataset` or `datasets.IterableDataset`): The split, as `load_splits` gives it.
        settings (`DataSettings`): The source and its columns.
        split (`str`): Name of the split in the source.

    Raises:
        `HfChainError`: Where a column or a file is missing.
    """
    if not isinstance(rows, Dataset):
        return fingerprint_files(stream_files(settings, split))
    check_columns(rows, settings)
    texts = [column for column in used_columns(settings) if column != settings.image_column]
    return fingerprint_rows(rows, settings.image_column, texts, look=settings.check == "all")


def fingerprint_texts(rows: Dataset | IterableDataset, settings: TextSettings, split: str) -> Fingerprint:
    """Fingerprint of a split of documents.

    Args:
        rows (`datasets.Dataset` or `datasets.IterableDataset`): The split, as `load_splits` gives it.
        settings (`TextSettings`): The source and its column.
        split (`str`): Name of the split in the source.

    Raises:
        `HfChainError`: Where the column or a file is missing.
    """
    if not isinstance(rows, Dataset):
        return fingerprint_files(stream_files(settings, split))
    check_text_column(rows, settings)
    return fingerprint_rows(rows, None, [settings.text_column])


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say in a few words how data differ from those of an earlier fingerprint; `None` where they do not."""
    if before == now:
        return None
    if before.keys() != now.keys():
        return "one of the two is a stream"
    if "files" in now:
        if before["files"] != now["files"]:
            return f"{now['files']:,} files instead of {before['files']:,}"
        if before["bytes"] != now["bytes"]:
            return f"files of {now['bytes']:,} bytes instead of {before['bytes']:,}"
        return "other files"
    if before["rows"] != now["rows"]:
        return f"{now['rows']:,} rows instead of {before['rows']:,}"
    if before["content"] == now["content"]:
        return "the order of the rows differs"
    kinds = {"images": "images", "texts": "captions, labels, conversations or texts"}
    return " and ".join(words for kind, words in kinds.items() if before[kind] != now[kind]) + " differ"


def _class_names(rows: Dataset, columns: Sequence[str]) -> bytes:
    features = {column: getattr(rows.features[column], "feature", rows.features[column]) for column in columns}
    named = {column: kind.names for column, kind in features.items() if isinstance(kind, ClassLabel)}
    return json.dumps(named).encode() if named else b""


def _text_digests(batch: pa.Table, columns: Sequence[str]) -> Iterator[bytes]:
    cells = [batch.column(column).to_pylist() for column in columns]
    for row in zip(*cells, strict=True) if cells else [()] * len(batch):
        yield xxhash.xxh3_128_digest(json.dumps(row, default=str).encode())


def _image_digests(column: pa.ChunkedArray, threads: Executor) -> Iterator[bytes]:
    for chunk in column.chunks:
        if pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type):
            single = _single_digests(chunk.flatten(), threads)
            for length in pc.fill_null(pc.list_value_length(chunk), 0).to_pylist():
                yield xxhash.xxh3_128_digest(b"".join(next(single) for _ in range(length)))
        else:
            yield from _single_digests(chunk, threads)


def _single_digests(images: pa.Array, threads: Executor) -> Iterator[bytes]:
    if pa.types.is_struct(images.type):
        held, paths = images.field("bytes"), images.field("path")
    else:
        held, paths = images, images if pa.types.is_string(images.type) else pa.nulls(len(images))
    if not (pa.types.is_binary(held.type) or pa.types.is_large_binary(held.type)):
        held = pa.nulls(len(images), pa.binary())
    named = [path if not one.is_valid else None for one, path in zip(held, paths.to_pylist(), strict=True)]
    for row, found in enumerate(threads.map(_file_digest, named)):
        one = held[row]
        # A buffer is hashed where it lies.
        yield xxhash.xxh3_128_digest(one.as_buffer()) if one.is_valid else found or _other_digest(images[row])


def _other_digest(image: pa.Scalar) -> bytes:
    """Of an image that is neither encoded nor named, such as an array."""
    return xxhash.xxh3_128_digest(repr(image.as_py()).encode())


def _file_digest(path: str | None) -> bytes | None:
    if path is None:
        return None
    path = local_path(path)
    if is_remote(path):
        return xxhash.xxh3_128_digest(path.encode())
    digest = xxhash.xxh3_128()
    try:
        check_regular_file(path)
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError):
        return xxhash.xxh3_128_digest(b"it cannot be read")
    return digest.digest()


def _size(file: str) -> int:
    import fsspec

    try:
        if is_remote(file):
            system, path = fsspec.core.url_to_fs(file)
            return int(system.info(path)["size"] or 0)
        return os.stat(file).st_size
    except (OSError, ValueError, KeyError) as error:
        raise HfChainError(f"{file} cannot be looked at, {reason(error)}; check data_files and the network") from error


def _remembered(rows: Dataset, image_column: str | None, text_columns: Sequence[str], look: bool) -> Path | None:
    """Where the fingerprint of these very files is kept; `None` for rows in memory."""
    if not rows.cache_files:
        return None
    stamps = [os.stat(file["filename"]) for file in rows.cache_files]
    files = [[stamp.st_size, stamp.st_mtime_ns, stamp.st_ctime_ns, stamp.st_ino] for stamp in stamps]
    parts = [
        rows._fingerprint,
        image_column,
        *text_columns,
        files,
        image_files_key(rows, image_column) if look and image_column else None,
    ]
    parts.append(_class_names(rows, text_columns).decode())
    key = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
    return Path(datasets.config.HF_DATASETS_CACHE) / "hf_chain" / "fingerprints" / f"{key}.json"


def _remember(path: Path, found: Fingerprint) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    except OSError:
        return  # Then the next start reads the data again.
