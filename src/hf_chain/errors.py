"""How hf_chain ends early: with a line that a user is meant to read."""

from __future__ import annotations

import reprlib
import signal


class HfChainError(ValueError):
    """A problem the user can fix: one line that names the thing, its value and the remedy.

    The command line prints the message without a traceback and exits with status 1.
    """


class Terminated(SystemExit):
    """The process was asked to end by SIGTERM; exits with status 143.

    Args:
        message (`str`, *optional*): what was saved before.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(128 + signal.SIGTERM)
        self.message = message

    def __str__(self) -> str:
        return self.message or "ended by SIGTERM"


def shortened(value: object, most: int = 80) -> str:
    """A value as a message or a report shows it: on one line, and cut where it is long."""
    # A cell may hold megabytes, also inside of lists and dictionaries.
    cut = reprlib.Repr()
    cut.maxstring = cut.maxother = cut.maxlong = 2 * most
    text = one_line(cut.repr(value))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def one_line(text: object) -> str:
    """A text, or what an error says, without its line breaks."""
    return " ".join(str(text).split())


def reason(error: BaseException, most: int = 200) -> str:
    """What an error of any library says, on one line, without a full stop, and cut where it is long."""
    return one_line(str(error)[: 10 * most])[:most].rstrip(". ") or type(error).__name__


def reason_behind(error: BaseException) -> str:
    """`reason`, and kind, of the error that a library has wrapped into another."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {reason(cause)}"
