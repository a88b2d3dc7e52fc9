"""Writes the whole report of a run into its `report` folder."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.files import write_bytes, write_text
from hf_chain.report import graft_formats
from hf_chain.report.graft_page import render_graft_page
from hf_chain.report.graft_plots import PLOTS as GRAFT_PLOTS
from hf_chain.report.graft_summary import GraftSummary, summarize_graft
from hf_chain.report.page import render_page
from hf_chain.report.plots import PLOTS
from hf_chain.report.summary import summarize
from hf_chain.report.tables import to_csv, to_json, to_markdown
from hf_chain.report.theme import DARK, LIGHT, Theme, applied
from hf_chain.stages.graft.record import is_graft
from hf_chain.stages.ledger import read_family

logger = logging.get_logger(__name__)


def write_report(run_dir: str | Path, baseline: str | Path | None = None) -> Path:
    """Writes tables, plots and the page of a run into `<run_dir>/report`.

    A chain's tables are `family.md`, `family.csv` and `family.json`, a graft's `graft.md`, `graft.csv` and
    `graft.json`. Works on a finished run and on one that is still going: what is not known yet is left out. Plots for
    which there is nothing to draw are not written, and those of an earlier report are removed.

    Args:
        run_dir (`str | Path`): Folder of the run.
        baseline (`str | Path`, *optional*): For a chain, folder of a run whose members, of the same names, were
            trained independently; adds the comparison. A graft has its baseline in its own run.

    Returns:
        `Path`: The page, `<run_dir>/report/index.html`.

    Raises:
        HfChainError: when a folder has no ledger, the ledger or another file of the run is damaged, or a graft is
            given a baseline.
    """
    run_dir = Path(run_dir)
    record = read_family(run_dir)
    folder = run_dir / "report"
    if is_graft(record):
        if baseline is not None:
            raise HfChainError(f"{run_dir} is a graft, whose baseline is in its own run: leave {baseline} out")
        graft = summarize_graft(record)
        figures = _draw(GRAFT_PLOTS, graft, folder)
        _write_pictures(folder, graft)
        write_text(folder / "graft.md", graft_formats.to_markdown(graft))
        write_text(folder / "graft.csv", graft_formats.to_csv(graft))
        write_text(folder / "graft.json", graft_formats.to_json(graft))
        page = render_graft_page(graft, figures)
    else:
        family = summarize(run_dir, Path(baseline) if baseline is not None else None)
        figures = _draw(PLOTS, family, folder)
        write_text(folder / "family.md", to_markdown(family))
        write_text(folder / "family.csv", to_csv(family))
        write_text(folder / "family.json", to_json(family))
        page = render_page(family, figures)
    write_text(folder / "index.html", page)
    logger.info(f"Report written to {folder / 'index.html'}")
    return folder / "index.html"


def _draw(
    plots: Mapping[str, Callable[[Any, Theme], Figure | None]], numbers: Any, folder: Path
) -> dict[str, dict[str, bytes]]:
    """Writes the plots as PNG and returns each as SVG in both themes."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, bytes]] = {}
    for name, draw in plots.items():
        path = folder / f"{name}.png"
        with applied(LIGHT):
            figure = draw(numbers, LIGHT)
            if figure is None:
                path.unlink(missing_ok=True)
                continue
            write_bytes(path, _image(figure, "png"))
            light = _image(figure, "svg")
        with applied(DARK):
            dark = draw(numbers, DARK)
            figures[name] = {"light": light, "dark": _image(dark, "svg") if dark else light}
    return figures


def _write_pictures(folder: Path, graft: GraftSummary) -> None:
    for number, example in enumerate(graft.examples):
        for place, picture in enumerate(example.pictures):
            write_bytes(folder / graft_formats.picture_name(number, place), picture.read_bytes())


def _image(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    # No date in the file: the same ledger gives the same bytes.
    figure.savefig(content, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()
