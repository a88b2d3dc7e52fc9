"""Imports the libraries and forks for every program that it is asked for: `python fork_server.py SOCKET`.

Nothing of hf_chain is imported before the fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

LIBRARIES = (
    *("torch", "torch.distributed.elastic.multiprocessing.errors", "accelerate", "datasets", "peft"),
    *("transformers.trainer", "transformers.models.auto.modeling_auto", "transformers.models.clip.modeling_clip"),
    *("transformers.models.clip.image_processing_clip", "transformers.models.llava.modeling_llava"),
    *("transformers.models.llama.modeling_llama", "matplotlib.figure", "jinja2", "pydantic", "typer"),
)
if shutil.which("nvidia-smi") is None:
    # It looks for a GPU when it is imported, and who has looked for one must not fork.
    LIBRARIES += ("deepspeed",)
SIZE = 8
"""Bytes in which a process id and an exit status are told."""


def serve(control: socket.socket) -> dict[str, Any]:
    """Forks for every request; what it returns is the request of the process that it returns in."""
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.freeze()
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 1 << 16, 3)
        if not message:
            sys.exit()
        while not message.endswith(b"\n"):
            message += control.recv(1 << 16)
        if os.fork() == 0:
            control.close()
            return attended(json.loads(message), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def attended(request: dict[str, Any], out: int, err: int, telling: int) -> dict[str, Any]:
    """Forks again, as somebody has to tell how the program ended, and returns in the program's process."""
    child = os.fork()
    if child:
        os.close(out)
        os.close(err)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(telling, f"{status:{SIZE}}".encode())
        os._exit(0)
    os.setsid()
    # A runner that was itself started in the background hands on an ignored SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in ((1, out), (2, err)):
        os.dup2(stream, number)
        os.close(stream)
    os.write(telling, f"{os.getpid():{SIZE}}".encode())
    os.close(telling)
    return request


def no_plots(plots: object, folder: Path) -> dict[str, Any]:
    """In place of `draw_plots`."""
    folder.mkdir(parents=True, exist_ok=True)
    return {}


def run(arguments: list[str], environment: dict[str, str], folder: str, plots: bool) -> None:
    """Runs the program as `python` does, with or without the plots of reports."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if not plots:
        from hf_chain.report import write

        write.draw_plots = no_plots
    kind, *rest = arguments
    if kind == "-m":
        sys.argv, sys.path[0] = rest, folder
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv, sys.path[0] = [kind, *rest[1:]], folder
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = arguments, str(Path(kind).resolve().parent)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    run(**serve(socket.socket(fileno=int(sys.argv[1]))))
