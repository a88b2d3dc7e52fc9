"""Small file operations that are whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hf_chain.errors import HfChainError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """`whole_folder` for a result that replaces nothing; ask `check_new_folder` before the work that leads to it.

    Raises:
        HfChainError: when the folder exists or cannot be written.
    """
    check_new_folder(folder)
    try:
        with whole_folder(folder) as staging:
            yield staging
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT):
            raise
        raise _cannot_be_made(folder, error) from error


def check_new_folder(folder: Path) -> None:
    """Refuses a folder that is there already, or whose place cannot be written; leaves no trace.

    Raises:
        HfChainError: naming the folder.
    """
    if folder.exists():
        raise HfChainError(f"{folder} exists already: give a folder that does not")
    existing = next(parent for parent in folder.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise _cannot_be_made(folder, error) from error


def _cannot_be_made(folder: Path, error: OSError) -> HfChainError:
    return HfChainError(f"{folder} cannot be made ({error.strerror}): choose another folder or change its rights")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to write into that takes the name `folder` when all is written, and vanishes when it is not."""
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file that other readers see whole."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file that other readers see whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON that other readers see whole."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the safetensors files of a model folder, in order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
