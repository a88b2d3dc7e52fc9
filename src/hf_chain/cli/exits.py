"""How a command ends: what goes wrong is one line on the error stream and an exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from hf_chain.errors import HfChainError, Terminated, one_line

WRITE_FAILURES = ("No space left on device", "Disk quota exceeded", "File too large", "inline_container")
"""What Python, safetensors and torch (which names the writer only) say where a disk is full."""
PEER_FAILURES = ("gloo", "NCCL", "TCPStore", "ProcessGroup")
"""What torch names where another process of the run does not answer any more."""


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
    remedy = "; the same command goes on from the last checkpoint" if resumes else ""
    main_process = os.environ.get("RANK", "0") == "0"
    if main_process:
        # The others may be waiting for this one, where Python is told nothing: SIGTERM ends them at once.
        signal.signal(signal.SIGTERM, _terminate)
    try:
        command()
    except KeyboardInterrupt:
        _fail(f"interrupted{remedy}", status=130)
    except Terminated as ended:
        if not main_process:
            sys.exit(143)
        _fail(ended.message or f"{ended}{remedy}", status=143)
    except Exception as error:
        _fail(_explain(error), getattr(error, "exit_code", 1))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _explain(error: Exception) -> str:
    text = one_line(error)
    if isinstance(error, HfChainError):
        return text
    if hasattr(error, "format_message"):  # Of a wrong command line, which has no public class in typer.
        return f"{one_line(error.format_message()).rstrip('.')}; see hf-chain --help"
    if any(sign in text for sign in WRITE_FAILURES):
        return f"the disk is full, or a quota is ({text[:300]}): free some space, then the same command goes on"
    if os.environ.get("WORLD_SIZE", "1") != "1" and any(sign in text for sign in PEER_FAILURES):
        return f"another process of this run has ended or does not answer; its own last line says why ({text[:200]})"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}: change its rights or choose another place"
    if isinstance(error, (FileExistsError, IsADirectoryError, NotADirectoryError)):
        return f"something else is in the place of {error.filename2 or error.filename} ({error.strerror}): remove it"
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
