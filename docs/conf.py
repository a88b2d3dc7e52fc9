"""Configuration of the documentation; build it with `make docs`."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "hf_chain"
author = "The hf_chain team"
copyright = "2026, The hf_chain team"
release = version = installed_version("hf-chain")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
    "recipe_reference",
    "command_line",
]
exclude_patterns = ["_build"]
# Measurements are committed as they are made; before the first one there is no page.
suppress_warnings = ["toc.empty_glob"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
math_numfig = False
html_math_renderer = "mathml"

# Docstrings write code in single backticks, as the Hugging Face libraries do.
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "model_config"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"hf_chain {release}"
html_static_path = ["_static"]
html_css_files = ["hf_chain.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#1f5fbf", "color-brand-content": "#1f5fbf"},
    "dark_css_variables": {"color-brand-primary": "#7fb2ff", "color-brand-content": "#7fb2ff"},
}
copybutton_prompt_text = "$ "

_CLASS_LINK = re.compile(r"\[`~?(?:\w+\.)*(\w+)`\]")


def plain_class_links(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Show the class links of Hugging Face docstrings, [`~transformers.Trainer`], as code."""
    lines[:] = [_CLASS_LINK.sub(r"`\1`", line) for line in lines]


def setup(app: Any) -> None:
    """Connect the hook."""
    app.connect("autodoc-process-docstring", plain_class_links)
