"""How a command ends: what goes wrong is one line on the error stream and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from hf_chain.errors import HfChainError

WRITE_FAILURES = ("No space left on device", "Disk quota exceeded", "File too large", "inline_container")
"""What Python, safetensors and torch (which names the writer only) say where a disk is full."""


def exit_cleanly(command: Callable[[], Any], resumes: bool = True) -> None:
    """Runs a command; what goes wrong is one line on the error stream and an exit status, never a traceback.

    Set `HF_CHAIN_DEBUG=1` to see tracebacks.

    Args:
        command (`Callable`): what is run.
        resumes (`bool`): whether it goes on from checkpoints when it is started again.
    """
    if os.environ.get("HF_CHAIN_DEBUG"):
        command()
        return
    try:
        command()
    except KeyboardInterrupt:
        remedy = "; the same command goes on from the last checkpoint" if resumes else ""
        _fail(f"interrupted{remedy}", status=130)
    except Exception as error:
        _fail(_explain(error), getattr(error, "exit_code", 1))


def _explain(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, HfChainError):
        return text
    if hasattr(error, "format_message"):  # Of a wrong command line, which has no public class in typer.
        return f"{' '.join(error.format_message().split()).rstrip('.')}; see hf-chain --help"
    if any(sign in text for sign in WRITE_FAILURES):
        return f"the disk is full, or a quota is ({text[:300]}): free some space, then the same command goes on"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}: change its rights or choose another place"
    return f"{type(error).__name__}: {text[:400]} (set HF_CHAIN_DEBUG=1 for the traceback)"


def _fail(message: str, status: int = 1) -> None:
    sys.stdout.flush()
    _close_progress_bars()
    print(f"hf-chain: {message}", file=sys.stderr)
    sys.exit(status)


def _close_progress_bars() -> None:
    """Ends the lines of bars that an error has left open, so that the message has a line of its own."""
    if tqdm := sys.modules.get("tqdm"):
        for bar in list(getattr(tqdm.tqdm, "_instances", ())):
            bar.close()
