"""Writes the whole report of a run into its `report` folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from transformers.utils import logging

from hf_chain.errors import HfChainError, reason_behind
from hf_chain.files import write_bytes, write_text
from hf_chain.report.page import render_page
from hf_chain.report.plots import draw_plots
from hf_chain.report.sheet import Sheet

logger = logging.get_logger(__name__)


def write_sheet(run_dir: Path, make: Callable[[], Sheet]) -> Path:
    """Writes tables, plots and the page of a run into `<run_dir>/report`.

    Plots for which there is nothing to draw are not written, and those of an earlier report are removed.

    Args:
        run_dir (`Path`): Folder of the run.
        make (`Callable[[], Sheet]`): Reads the run; what it stumbles over is said in one line.

    Returns:
        `Path`: The page, `<run_dir>/report/index.html`.

    Raises:
        HfChainError: when the ledger or another file of the run is damaged, or a file cannot be written.
    """
    try:
        return _write(make(), run_dir / "report")
    except OSError as error:
        raise HfChainError(
            f"the report of {run_dir} cannot be written ({error.strerror or error}: {error.filename or 'report'}): "
            f"make room or change rights there, then `hf-chain report {run_dir}`"
        ) from error
    except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
        # A line without a checksum may say anything of recipe and plan.
        raise HfChainError(
            f"the report of {run_dir} cannot be made of what its ledger says ({reason_behind(error)}): "
            "restore ledger.jsonl"
        ) from error


def try_report(run_dir: Path, make: Callable[[], Sheet]) -> Path | None:
    """`write_sheet` for a run, which goes on all the same where that fails, with a warning: no result is in it."""
    try:
        return write_sheet(run_dir, make)
    except HfChainError as error:
        logger.warning(str(error))
        return None


def _write(sheet: Sheet, folder: Path) -> Path:
    figures = draw_plots(sheet.plots, folder)
    for name, picture in sheet.pictures.items():
        write_bytes(folder / name, picture.read_bytes())
    for name, text in sheet.files.items():
        write_text(folder / name, text)
    write_text(folder / "index.html", render_page(sheet, figures))
    logger.info(f"Report written to {folder / 'index.html'}")
    return folder / "index.html"
