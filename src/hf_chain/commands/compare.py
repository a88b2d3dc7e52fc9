"""What `hf-chain compare` does: chains against twins at equal quality, as text, JSON and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hf_chain.commands.methods import CHAIN, method_of
from hf_chain.errors import HfChainError
from hf_chain.files import write_bytes, write_json, write_text
from hf_chain.methods.chain.comparison.compare import Comparison, compare
from hf_chain.methods.chain.comparison.table import to_markdown
from hf_chain.runs.ledger import read_family

FILE = "compare"


def compare_runs(
    folders: Sequence[str | Path],
    metric: str | None = None,
    split: str = "validation",
    output: str | Path | None = None,
) -> Comparison:
    """Says what the chains among runs cost against twins of the same sizes at equal quality.

    Args:
        folders (`Sequence[str | Path]`): Folders of runs, finished or not: chains, twins, continued predecessors.
        metric (`str`, *optional*): Name of the metric; `None` takes the main one of the task.
        split (`str`): Split that it was measured on.
        output (`str | Path`, *optional*): Folder for `compare.md`, `compare.json`, `compare.png` and `compare.svg`.

    Returns:
        `Comparison`: Its figures; `to_json()` gives them as plain values.

    Raises:
        HfChainError: when a run is no chain, runs do not compare, or a file cannot be written.
    """
    for folder in folders:
        if method_of(read_family(folder).recipe) is not CHAIN:
            raise HfChainError(f"{folder} is the run of a graft, which has its baseline in itself: leave it out")
    found = compare(folders, metric, split)
    if output is not None:
        _write(found, Path(output))
    return found


def _write(found: Comparison, folder: Path) -> None:
    from functools import partial

    from hf_chain.methods.chain.comparison.plot import comparison_plot
    from hf_chain.report.plots import draw_plots
    from hf_chain.report.sheet import Plot

    try:
        figures = draw_plots({FILE: Plot("", partial(comparison_plot, found))}, folder)
        for themes in figures.values():
            write_bytes(folder / f"{FILE}.svg", themes["light"])
        write_text(folder / f"{FILE}.md", to_markdown(found))
        write_json(folder / f"{FILE}.json", found.to_json())
    except OSError as error:
        raise HfChainError(
            f"{folder} cannot be written ({error.strerror or error}): choose another folder for --output"
        ) from error
