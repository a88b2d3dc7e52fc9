"""The shell and Python snippets of README and documentation, run in order, as they are written.

All of a page run in one folder, which is a clone as far as commands can tell, in one Python namespace, with the
`.venv` of this process. What has to be there before is in `support.stand_ins`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.recipes import REPOSITORY, environment

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
DEMOS = ("make demo", "make demo-graft")
"""What the README begins with; other pages go on from the runs that are left."""
CLONED = ("Makefile", "README.md", "constraints", "docs", "examples", "pyproject.toml", "setup.py", "src")
LEFT_OUT = {
    r"^make test\b": "is the command that runs the tests themselves",
    r"^pip install ": "changes the environment; `make` installs the same before the tests",
    r"^vllm serve ": "vLLM needs an environment of its own, see benchmarks/serving.py",
}
"""Commands that are not run here, and why."""
EXTRAS = {"lm_eval": "lm_eval", "lmms-eval": "lmms_eval"}
"""Commands of the extra `eval` and the package that each needs."""


@dataclass(frozen=True)
class Snippet:
    """A Python block or a command of a page; `line` is where it begins."""

    page: str
    line: int
    language: str
    text: str

    @property
    def title(self) -> str:
        """The page, the line and the first words."""
        return f"{self.page}:{self.line} {' '.join(self.text.split())[:60]}"

    @property
    def left_out(self) -> str | None:
        """Why it is not run, or nothing."""
        if self.language == "python":
            return None
        reasons = [reason for pattern, reason in LEFT_OUT.items() if re.search(pattern, self.text)]
        package = EXTRAS.get(self.text.split()[0])
        if package and importlib.util.find_spec(package) is None:
            reasons.append(f"{package} is not installed: pip install -e '.[eval]'")
        return reasons[0] if reasons else None


def name_of(page: Path) -> str:
    """The page as the repository names it."""
    return page.relative_to(REPOSITORY).as_posix()


def fenced(page: Path) -> Iterator[tuple[int, str, str]]:
    """Line, language and text of every fenced block of a page."""
    text = page.read_text(encoding="utf-8")
    for block in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, block.start()) + 2, block[1], block[2]


def snippets(page: Path) -> list[Snippet]:
    """Python blocks and commands of a page in order; a command may go on over lines that end with a backslash."""
    found = []
    for line, language, text in fenced(page):
        if language == "python":
            found.append(Snippet(name_of(page), line, language, text))
        elif language in ("bash", "sh", "shell", "console"):
            commands = re.finditer(r"^(?!#|\s*$)(?:.*\\\n)*.*$", text, re.MULTILINE)
            found += [Snippet(name_of(page), line + text.count("\n", 0, c.start()), "bash", c[0]) for c in commands]
    return found


def clone(folder: Path) -> Path:
    """Makes a folder look like a clone whose `.venv` is set up, with the sources of this one and none of its runs."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CLONED:
        source = REPOSITORY / name
        if name in ("docs", "src", "constraints"):
            (folder / name).symlink_to(source)
        else:
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv" / "installed").touch()
    for page in PAGES:
        for _, language, text in fenced(page):
            if language == "yaml" and (named := re.match(r"# (\S+\.yaml)\n", text)):
                (folder / named[1]).write_text(text, encoding="utf-8")
    return folder


class PageRun:
    """Runs the snippets of one page in the working directory.

    Args:
        variables (`dict[str, str]`, *optional*): variables for the commands beside those of every launched process.
        hf_chain (`Callable`, *optional*): runs `hf-chain` in this process, which saves a start of seconds; without it
            the command is started as everything else.
    """

    def __init__(self, variables: Mapping[str, str] | None = None, hf_chain: Callable[..., Any] | None = None) -> None:
        self.namespace: dict[str, Any] = {"__name__": "snippet"}
        self.environment = environment() | {"HF_HUB_OFFLINE": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.environment |= variables or {}
        self.hf_chain = hf_chain

    def run(self, snippet: Snippet, timeout: float = 540) -> float:
        """Runs a snippet and returns the seconds that it took.

        Raises:
            AssertionError: with what it said, where it fails.
        """
        started = time.monotonic()
        words = re.sub(r"\s+#.*$", "", snippet.text, flags=re.MULTILINE)
        if snippet.language == "python":
            exec(compile("\n" * (snippet.line - 1) + snippet.text, snippet.page, "exec"), self.namespace)
        elif self.hf_chain is not None and words.startswith("hf-chain "):
            self._in_this_process(snippet, words)
        else:
            self._started(snippet, timeout)
        return time.monotonic() - started

    def _in_this_process(self, snippet: Snippet, words: str) -> None:
        assert self.hf_chain is not None
        outcome = self.hf_chain(*shlex.split(words.replace("\\\n", " "))[1:])
        assert outcome.status in (0, None), f"{snippet.title}\n{outcome.err[-3000:]}"

    def _started(self, snippet: Snippet, timeout: float) -> None:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", snippet.text],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        assert process.returncode == 0, f"{snippet.title} ended with {process.returncode}\n{said[-3000:]}"
