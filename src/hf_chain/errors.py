"""The one exception a user is meant to read."""

from __future__ import annotations


class HfChainError(ValueError):
    """A problem the user can fix: one line that names the thing, its value and the remedy.

    The command line prints the message without a traceback and exits with status 1.
    """
