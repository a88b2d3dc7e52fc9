"""What the report of a run shows: a method fills it in, and the report does not ask which method it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hf_chain.runs.ledger import FamilyRecord
from hf_chain.theme import Theme

Table = tuple[list[str], list[list[str]]]
"""Header and rows, as written for people."""


@dataclass(frozen=True)
class ShownTable:
    """A table of the page.

    Args:
        title (`str`): What stands above it.
        table (`Table`): Header and rows.
        note (`str`): What stands below the title; may be empty.
        totals (`bool`): Whether the last row sums the others up.
        wrap (`bool`): Whether long cells are broken.
    """

    title: str
    table: Table
    note: str = ""
    totals: bool = False
    wrap: bool = False


@dataclass(frozen=True)
class Plot:
    """A plot, drawn once in each theme.

    Args:
        caption (`str`): What stands below it.
        draw (`Callable[[Theme], Figure | None]`): Draws it; `None` comes back when there is nothing to draw yet.
    """

    caption: str
    draw: Callable[[Theme], Figure | None]


@dataclass(frozen=True)
class Sheet:
    """Everything that a report shows of a run.

    Args:
        record (`FamilyRecord`): The ledger, for recipe, environment and whether the run is finished.
        name (`str`): Name of the run.
        eyebrow (`str`): What a finished run is, above its name.
        subtitle (`str`): What it is made of and how far it is.
        tiles (`list[dict[str, str]]`): Headline numbers: `value` and `label`.
        plots (`Mapping[str, Plot]`): File name, without its ending, to the plot.
        tables (`list[ShownTable]`): Tables of the page, in order.
        sentences (`list[str]`): What came out, in words.
        files (`Mapping[str, str]`): Name to text of the files that the page links to.
        template (`tuple[str, str]`): Package, and file in its `templates`, of a page that extends `page.html.jinja`.
        details (`Mapping[str, Any]`): What that page shows besides.
        pictures (`Mapping[str, Path]`): Name beside the page to the picture that is copied there.
    """

    record: FamilyRecord
    name: str
    eyebrow: str
    subtitle: str
    tiles: list[dict[str, str]]
    plots: Mapping[str, Plot]
    tables: list[ShownTable]
    sentences: list[str]
    files: Mapping[str, str]
    template: tuple[str, str]
    details: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)
