"""Look of the plots: two themes, one colour-blind-safe palette (Okabe-Ito, and viridis for ordered members)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib import colormaps


@dataclass(frozen=True)
class Theme:
    """Colours of a plot."""

    background: str
    text: str
    muted: str
    grid: str
    chain: str
    alone: str
    ramp: tuple[float, float]
    """Part of the colour map that has contrast on the background, for the smallest and the largest member."""

    def members(self, count: int) -> list[Any]:
        """One colour for each member, from small to large."""
        low, high = self.ramp
        return [colormaps["viridis"](low + (high - low) * i / max(count - 1, 1)) for i in range(count)]


LIGHT = Theme("#ffffff", "#1a1f2b", "#667085", "#e6e9ef", "#0072b2", "#d55e00", (0.78, 0.12))
DARK = Theme("#171b24", "#e8ebf1", "#98a2b3", "#2b3140", "#56b4e9", "#e69f00", (0.95, 0.55))


@contextmanager
def applied(theme: Theme) -> Iterator[None]:
    """Draws figures made inside in `theme`, whatever the user's own settings are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "figure.facecolor": theme.background,
                "figure.dpi": 150,
                "savefig.facecolor": theme.background,
                "axes.facecolor": theme.background,
                "axes.edgecolor": theme.grid,
                "axes.labelcolor": theme.muted,
                "axes.titlecolor": theme.text,
                "axes.titlelocation": "left",
                "axes.titlesize": 12,
                "axes.titleweight": "bold",
                "axes.titlepad": 14,
                "axes.grid": True,
                "axes.axisbelow": True,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.spines.left": False,
                "grid.color": theme.grid,
                "grid.linewidth": 0.8,
                "text.color": theme.text,
                "xtick.color": theme.muted,
                "ytick.color": theme.muted,
                "xtick.major.size": 0,
                "ytick.major.size": 0,
                "font.size": 9.5,
                "lines.linewidth": 2,
                "legend.frameon": False,
                "svg.hashsalt": "hf_chain",
            }
        )
        yield
