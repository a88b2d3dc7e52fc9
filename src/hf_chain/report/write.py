"""Writes the whole report of a run into its `report` folder."""

from __future__ import annotations

import io
import os
from pathlib import Path

from matplotlib.figure import Figure
from transformers.utils import logging

from hf_chain.report.page import render_page
from hf_chain.report.plots import PLOTS
from hf_chain.report.summary import summarize
from hf_chain.report.tables import to_csv, to_json, to_markdown
from hf_chain.report.theme import DARK, LIGHT, applied

logger = logging.get_logger(__name__)


def write_report(run_dir: str | Path, baseline: str | Path | None = None) -> Path:
    """Writes `family.md`, `family.csv`, `family.json`, the plots and `index.html` into `<run_dir>/report`.

    Works on a finished run and on one that is still going: what is not known yet is left out. Plots for which there is
    nothing to draw are not written, and those of an earlier report are removed.

    Args:
        run_dir (`str | Path`): Folder of the run.
        baseline (`str | Path`, *optional*): Folder of a run whose members, of the same names, were trained
            independently; adds the comparison.

    Returns:
        `Path`: The page, `<run_dir>/report/index.html`.

    Raises:
        HfChainError: when a folder has no ledger, or the ledger or a training log is damaged.
    """
    family = summarize(Path(run_dir), Path(baseline) if baseline is not None else None)
    folder = Path(run_dir) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, bytes]] = {}
    for name, draw in PLOTS.items():
        path = folder / f"{name}.png"
        with applied(LIGHT):
            figure = draw(family, LIGHT)
            if figure is None:
                path.unlink(missing_ok=True)
                continue
            _write(path, _image(figure, "png"))
            light = _image(figure, "svg")
        with applied(DARK):
            dark = draw(family, DARK)
            figures[name] = {"light": light, "dark": _image(dark, "svg") if dark else light}
    _write(folder / "family.md", to_markdown(family).encode())
    _write(folder / "family.csv", to_csv(family).encode())
    _write(folder / "family.json", to_json(family).encode())
    page = folder / "index.html"
    _write(page, render_page(family, figures).encode())
    logger.info(f"Report written to {page}")
    return page


def _image(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    # No date in the file: the same ledger gives the same bytes.
    figure.savefig(content, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
