"""Plots of a report: drawn in both themes, and the axis that many of them share."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from hf_chain.cost import human
from hf_chain.files import write_bytes
from hf_chain.report.sheet import Plot
from hf_chain.theme import DARK, LIGHT, applied


def draw_plots(plots: Mapping[str, Plot], folder: Path) -> dict[str, dict[str, bytes]]:
    """Writes plots as PNG and returns each as SVG in both themes; those with nothing to draw are removed.

    Args:
        plots (`Mapping[str, Plot]`): File name, without its ending, to the plot.
        folder (`Path`): Where the files are written; made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, bytes]] = {}
    for name, plot in plots.items():
        path = folder / f"{name}.png"
        with applied(LIGHT):
            figure = plot.draw(LIGHT)
            if figure is None:
                path.unlink(missing_ok=True)
                continue
            write_bytes(path, _image(figure, "png"))
            # Now everything has its place, in all three images: finding it takes longer than drawing.
            figure.set_layout_engine(None)
            light = _image(figure, "svg")
        with applied(DARK):
            dark = plot.draw(DARK)
            if dark is not None:
                dark.set_layout_engine(None)
                for axis, same in zip(dark.axes, figure.axes, strict=True):
                    axis.set_position(same.get_position(original=True))
            figures[name] = {"light": light, "dark": _image(dark, "svg") if dark else light}
    return figures


def macs_axis(axis: Axes, label: str) -> None:
    """Makes the horizontal axis one of MACs, called `label`."""
    axis.set_xlabel(label)
    axis.xaxis.set_major_locator(MaxNLocator(7))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda macs, _: human(macs) if macs >= 0 else ""))


def _image(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    # No date in the file: the same ledger gives the same bytes.
    figure.savefig(content, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()
