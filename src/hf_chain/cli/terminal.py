"""A conversation in the terminal."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import typer

from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from hf_chain.commands.chat import Conversation

SHOW, ANEW = "/image", "/new"


def answer(conversation: Conversation, question: str) -> None:
    """Prints the answer while it is generated."""
    conversation.ask(question, lambda text: typer.echo(text, nl=False))
    typer.echo()


def talk(conversation: Conversation) -> None:
    """Asks for questions until the input ends; what goes wrong with one does not end the conversation."""
    _take_any_bytes(sys.stdin, "surrogateescape")  # so that names of files keep theirs
    _take_any_bytes(sys.stdout, "replace")
    typer.echo(
        f"{SHOW} PATH shows a picture, as does its path alone, {ANEW} begins anew about it, Ctrl-C stops an answer,"
        " Ctrl-D ends."
    )
    while (line := _read()) is not None:
        try:
            if (picture := _picture(line)) is not None:
                conversation.show(picture)
            elif line.startswith("/"):
                _obey(conversation, line)
            elif line:
                answer(conversation, line)
        except HfChainError as error:
            typer.echo(error, err=True)
        except KeyboardInterrupt:
            typer.echo()


def dragged_path(text: str) -> Path:
    """The path of a file that was dropped on the terminal, or typed.

    Args:
        text (`str`): the path as it is, in quotes, with escaped spaces, or as a `file://` address.
    """
    plain = Path(os.path.expanduser(text))
    if os.path.isfile(plain):
        return plain
    try:
        words = shlex.split(text)
    except ValueError:  # A quote is not closed.
        return plain
    if len(words) != 1:
        return plain
    address = words[0].startswith("file://")
    return Path(unquote(urlsplit(words[0]).path) if address else os.path.expanduser(words[0]))


def _take_any_bytes(stream: Any, errors: str) -> None:
    # Streams that stand in for the terminal's may hold text already.
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=errors)


def _read() -> str | None:
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        typer.echo()
        return None


def _picture(line: str) -> Path | None:
    """The picture that a line shows: one that `/image` names, or a file whose path is the whole line."""
    command, _, rest = line.partition(" ")
    if command == SHOW and rest.strip():
        return dragged_path(rest.strip())
    alone = line.startswith(("/", "~", "'", '"', "file://"))
    # It takes what is longer than any name for no file, where `Path.is_file` stops.
    return path if alone and os.path.isfile(path := dragged_path(line)) else None


def _obey(conversation: Conversation, line: str) -> None:
    if line != ANEW:
        raise HfChainError(f"{line!r} is no command: write {SHOW} PATH, {ANEW}, or a question")
    conversation.forget()
