"""The report as one HTML page that needs nothing but itself: styles, plots and data are inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from hf_chain.report.sheet import Sheet


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
