"""Runs every shell and Python snippet of README and documentation as written, and prints a table of what came of it.

    python tests/docs/run_snippets.py [--short] [--demos FOLDER] [PAGE ...]

In full that is two to three hours on two CPU cores: both demos, their twins, and a family on stand-ins of pictures.
`--short` shortens the recipes, as the tests do. Models and data that a reader brings are tiny, on a local Hub under
the names that the pages use; nothing is downloaded. What needs a GPU or other environments is left out, and the table
says why. `--demos` keeps the clone in which both demos have run, so that a page can be run again without them. The
status is 1 where a snippet failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.own_home import enter_own_home


def main() -> int:
    """Reads the flags, runs the pages and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", help="names of pages, such as README.md or docs/training.md; default: all")
    parser.add_argument("--short", action="store_true", help="shorten the recipes, as the tests do")
    parser.add_argument("--demos", type=Path, help="folder of the clone after both demos; made if missing")
    flags = parser.parse_args()
    enter_own_home()
    from support.hub_server import HubServer
    from support.stand_ins import ORGANISATIONS

    with HubServer(orgs=ORGANISATIONS) as hub, tempfile.TemporaryDirectory(prefix="hf-chain-snippets-") as folder:
        # Before libraries are imported that read them.
        os.environ |= hub.environment()
        rows = run_pages(Path(folder), hub, flags)
    print("| snippet | what came of it |\n|---|---|")
    for title, said in rows:
        print(f"| `{title.replace('|', '/')}` | {said} |")
    return int(any(said.startswith("failed") for _, said in rows))


def run_pages(folder: Path, hub: object, flags: argparse.Namespace) -> list[tuple[str, str]]:
    """Runs the snippets of the chosen pages, or of all; title and outcome of each."""
    from support.snippets import PAGES, PageRun, name_of, snippets
    from support.stand_ins import fill_hub

    fill_hub(hub, folder / "hub")
    first = (flags.demos or folder / "first" / "hf_chain").resolve()
    rows = [] if first.exists() else run_demos(first, flags.short)
    for page in PAGES:
        if flags.pages and name_of(page) not in flags.pages:
            continue
        clone_of_page = folder / page.stem / "hf_chain"
        shutil.copytree(first, clone_of_page, symlinks=True)
        os.chdir(clone_of_page)
        run = PageRun()
        rows += [outcome(run, snippet) for snippet in snippets(page)]
    os.chdir(folder)
    return rows


def run_demos(first: Path, short: bool) -> list[tuple[str, str]]:
    """Makes the clone that all pages begin with, and runs both demos there."""
    from support.snippets import DEMOS, PageRun, Snippet, clone
    from support.stand_ins import shorten_recipes, write_stand_ins

    clone(first)
    if short:
        shorten_recipes(first)
    write_stand_ins(first, 100 if short else 2000)
    os.chdir(first)
    return [outcome(PageRun(), Snippet("README.md", 0, "bash", command)) for command in DEMOS]


def outcome(run: object, snippet: object) -> tuple[str, str]:
    """Runs a snippet; its title, and the seconds it took, why it was left out, or how it failed."""
    said = f"left out: {snippet.left_out}"
    if snippet.left_out is None:
        try:
            said = f"ran, {run.run(snippet, timeout=4 * 3600):.0f} s"
        except Exception as error:
            print(f"{snippet.title}: {error}", file=sys.stderr)
            said = f"failed: {type(error).__name__} {str(error).splitlines()[-1] if str(error) else ''}"
    print(f"{snippet.title}: {said}", file=sys.stderr, flush=True)
    return snippet.title, said


if __name__ == "__main__":
    sys.exit(main())
