"""The templates of model cards."""

from __future__ import annotations

from typing import Any

import jinja2


def render_card(template: str, **values: Any) -> str:
    """Fills in the body of a card.

    Args:
        template (`str`): File in `hub/templates`.
        **values: What the template needs, all of it.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hf_chain.hub"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)
