"""A conversation in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hf_chain.errors import HfChainError

if TYPE_CHECKING:
    from hf_chain.stages.graft.chat import Conversation

SHOW, ANEW = "/image", "/new"


def answer(conversation: Conversation, question: str) -> None:
    """Prints the answer while it is generated."""
    conversation.ask(question, lambda text: typer.echo(text, nl=False))
    typer.echo()


def talk(conversation: Conversation) -> None:
    """Asks for questions until the input ends; what goes wrong with one does not end the conversation."""
    typer.echo(f"{SHOW} PATH shows a picture, {ANEW} begins anew about it, Ctrl-C stops an answer, Ctrl-D ends.")
    while (line := _read()) is not None:
        try:
            if line.startswith("/"):
                _obey(conversation, line)
            elif line:
                answer(conversation, line)
        except HfChainError as error:
            typer.echo(error, err=True)
        except KeyboardInterrupt:
            typer.echo()


def _read() -> str | None:
    try:
        return input("> ").strip()
    except (EOFError, KeyboardInterrupt):
        typer.echo()
        return None


def _obey(conversation: Conversation, line: str) -> None:
    command, _, rest = line.partition(" ")
    if command == SHOW and rest.strip():
        conversation.show(Path(rest.strip()).expanduser())
    elif command == ANEW:
        conversation.forget()
    else:
        raise HfChainError(f"{line!r} is no command: write {SHOW} PATH, {ANEW}, or a question")
