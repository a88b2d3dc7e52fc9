"""What cards of all methods are made of: a template that is filled in, and names that give nothing away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import yaml


def render_card(package: str, template: str, **values: Any) -> str:
    """Fills in the body of a card.

    Args:
        package (`str`): Package that has the template.
        template (`str`): File in its `templates`.
        **values: What the template needs, all of it.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def public_name(source: str) -> str:
    """A Hub name as it is; of a local path only the last part."""
    return Path(source).name if Path(source).exists() or Path(source).is_absolute() else str(source)


def public_path(text: str) -> str:
    """Of an absolute path the last part; any other text as it is."""
    return Path(text).name if Path(text).is_absolute() else text


def public_recipe(recipe: dict[str, Any]) -> str:
    """A recipe as YAML, with the last part alone of every absolute path in it.

    Args:
        recipe (`dict`): As `model_dump` gives it.
    """
    return yaml.safe_dump(_public(recipe), sort_keys=False, allow_unicode=True)


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _public(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return public_path(value) if isinstance(value, str) else value
