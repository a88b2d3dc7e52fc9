"""Writes the whole report of a run into its `report` folder."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from transformers.utils import logging

from hf_chain.errors import HfChainError, reason_behind
from hf_chain.files import write_bytes, write_text
from hf_chain.report.plots import draw_plots
from hf_chain.report.sheet import Sheet

logger = logging.get_logger(__name__)


def render_page(sheet: Sheet, figures: Mapping[str, Mapping[str, bytes]]) -> str:
    """Renders the page.

    Args:
        sheet (`Sheet`): What it shows.
        figures (`Mapping[str, Mapping[str, bytes]]`): For each plot its SVG in a `light` and a `dark` theme.

    Returns:
        `str`: HTML without scripts and without anything to load.
    """
    package, template = sheet.template
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("hf_chain.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        finished=bool(sheet.record.finished),
        figures=[
            {"caption": sheet.plots[name].caption} | {theme: data_uri(svg, "svg+xml") for theme, svg in themes.items()}
            for name, themes in figures.items()
        ],
        recipe=yaml.safe_dump(sheet.record.recipe, sort_keys=False, allow_unicode=True),
        environment=_flat(sheet.record.environment),
        name=sheet.name,
        eyebrow=sheet.eyebrow,
        subtitle=sheet.subtitle,
        tiles=sheet.tiles,
        tables=[
            {"title": shown.title, "note": shown.note, "header": shown.table[0], "rows": shown.table[1]}
            | {"totals": shown.totals, "wrap": shown.wrap}
            for shown in sheet.tables
        ],
        sentences=sheet.sentences,
        files=list(sheet.files),
        **sheet.details,
    )


def data_uri(image: bytes, kind: str) -> str:
    """An image, such as an `svg+xml`, as an address that holds all of it."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values under dotted names."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: str(value)}
    return flat


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
