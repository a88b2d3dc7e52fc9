"""Folders and files as users name them: every character of what exists is literal."""

from __future__ import annotations

import glob
import os
from pathlib import Path

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
