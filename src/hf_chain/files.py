"""Files and folders that are whole or not at all, and stay what their manifest says.

A manifest names every file of a folder with its size and SHA-256 and is written last. Reading a folder back costs one
pass over its files; `HF_CHAIN_VERIFY=size` compares sizes alone, for checkpoints of hundreds of gigabytes.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from hf_chain.errors import HfChainError


def check_path(path: str | os.PathLike[str]) -> None:
    """Refuses backslashes, which name no folders outside of Windows, and NUL, which no name holds.

    Args:
        path (`str` or `PathLike`): a path, or the name of something on the Hub.

    Raises:
        HfChainError: naming the path as it should be.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise HfChainError(f"{text!r} holds a NUL, which no path does: remove it")
    if "\\" in text and os.sep != "\\":
        slashes = text.replace("\\", "/")
        raise HfChainError(f"{text} has backslashes, which separate no folders here: write {slashes}")


def as_pattern(path: str, folder: str | Path = ".") -> str:
    """A path or pattern of files as a pattern, in which what exists stands for itself.

    In `runs[1]/*.tar` the folder `runs[1]` is taken by its name where there is one.

    Args:
        path (`str`): path or pattern; an address with `://` is left as it is.
        folder (`str` or `Path`): where relative ones start.

    Returns:
        `str`: an absolute pattern.

    Raises:
        HfChainError: for `::`, which cannot be escaped, and for backslashes.
    """
    if "://" in path:
        return path
    check_path(path)
    whole = Path(os.path.abspath(Path(folder, path)))
    if "::" in str(whole):
        raise HfChainError(f"{path} has '::' in its full name, which names a file in an archive: rename the folder")
    known = next(part for part in (whole, *whole.parents) if part.exists())
    return str(Path(glob.escape(str(known)), whole.relative_to(known)))


MANIFEST_NAME = "manifest.json"
CARD_NAME = "README.md"
"""In no manifest: people edit cards."""
LOADED = (".bin", ".jinja", ".json", ".model", ".npy", ".pt", ".pth", ".safetensors")
LOADED_NAMES = ("merges.txt", "vocab.txt")
"""What is loaded where it is found, and therefore must not be there unless it was written with the rest."""


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
    """Gives a folder to write into that takes the name `folder` when all is on disk, and vanishes when it is not."""
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        write_manifest(staging)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staging, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_manifest(folder: Path) -> None:
    """Brings all that is in `folder` to disk, and names it in `manifest.json`.

    Args:
        folder (`Path`): a folder to which nothing will be added.

    Raises:
        HfChainError: when `HF_CHAIN_VERIFY` is neither `sha256` nor `size`.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names = [name for name in names if name != MANIFEST_NAME]
    for name in names:
        sync(folder / name)
    for path in folder.rglob("*"):
        if path.is_dir():
            sync(path)
    listed = [name for name in names if name != CARD_NAME]
    sizes = [(folder / name).stat().st_size for name in listed]
    hashes = _hashes(folder, listed) if _reads_contents() else [None] * len(listed)
    files = {name: {"size": size, "sha256": sha} for name, size, sha in zip(listed, sizes, hashes, strict=True)}
    write_json(folder / MANIFEST_NAME, {"files": files})
    sync(folder.parent)


def first_difference(folder: Path) -> str | None:
    """What of `folder` is not as its manifest says, such as `config.json is missing`; `None` where all is.

    Args:
        folder (`Path`): what `write_manifest` was asked about. Its card, hidden files and notes may have changed.

    Raises:
        HfChainError: when `HF_CHAIN_VERIFY` is neither `sha256` nor `size`.
    """
    try:
        files = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))["files"]
        known = {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}
    except FileNotFoundError:
        return f"{MANIFEST_NAME} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST_NAME} cannot be read"
    for name, (size, _) in known.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (found := (folder / name).stat().st_size) != size:
            return f"{name} has {found} bytes, not {size}"
    named = {*known, MANIFEST_NAME}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if is_loaded(path) and not path.name.startswith(".") and name not in named:
            return f"{name} was not there when it was written"
    hashed = [name for name, (_, sha) in known.items() if sha is not None] if _reads_contents() else []
    try:
        for name, sha in zip(hashed, _hashes(folder, hashed), strict=True):
            if sha != known[name][1]:
                return f"{name} has changed since it was written"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    return None


def is_loaded(path: Path) -> bool:
    """Whether models or tokenizers are made of a file of this name."""
    return path.suffix in LOADED or path.name in LOADED_NAMES


def check_whole(folder: Path, remedy: str) -> None:
    """Refuses a folder that is not as its manifest says.

    Args:
        folder (`Path`): what is about to be built upon.
        remedy (`str`): what the user can do.

    Raises:
        HfChainError: naming folder, file and remedy.
    """
    if difference := first_difference(folder):
        raise HfChainError(f"{folder} is damaged ({difference}): {remedy}")


def check_as_written(name: str | Path) -> None:
    """`check_whole` for whatever a user names: folders that hf_chain did not write, and Hub names, have no manifest.

    Args:
        name (`str` or `Path`): folder or Hub name of a model.

    Raises:
        HfChainError: naming folder, file and remedy.
    """
    if (Path(name) / MANIFEST_NAME).is_file():
        check_whole(Path(name), f"restore it, or remove its {MANIFEST_NAME} if the change is meant")


def _reads_contents() -> bool:
    wanted = os.environ.get("HF_CHAIN_VERIFY", "sha256")
    if wanted not in ("sha256", "size"):
        raise HfChainError(f"HF_CHAIN_VERIFY is {wanted!r}: set it to sha256, or to size to compare sizes alone")
    return wanted == "sha256"


def _hashes(folder: Path, names: list[str]) -> list[str]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(lambda name: file_sha256(folder / name), names))


def _sha256(paths: list[Path]) -> str:
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 18))
    for path in paths:
        # One block for all that is read: it stays in the processor's cache.
        with path.open("rb", buffering=0) as file:
            while size := file.readinto(block):
                digest.update(block[:size])
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to disk, so that a power cut cannot undo them."""
    if os.name != "posix":
        # Windows neither opens folders nor syncs what is open for reading.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some file systems of networks do not sync folders.
        with suppress(OSError) if path.is_dir() else nullcontext():
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file that other readers, and a power cut, leave whole."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def model_sha256(folder: Path) -> str:
    """SHA-256 over what is loaded from a folder, or over its manifest, which is compared with that when it is loaded.

    Args:
        folder (`Path`): a model. Its files are read once; `HF_CHAIN_VERIFY=size` takes their sizes instead.
    """
    manifest = folder / MANIFEST_NAME
    if manifest.is_file():
        return _sha256([manifest])
    paths = sorted(path for path in folder.iterdir() if is_loaded(path) and path.is_file())
    if _reads_contents():
        return _sha256(paths)
    return hashlib.sha256(repr([(path.name, path.stat().st_size) for path in paths]).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    return _sha256([path])


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the safetensors files of a model folder, in order of their names."""
    return _sha256(sorted(folder.glob("*.safetensors")))
