"""Directives that write the recipe reference from the settings themselves, so that it never goes stale.

`recipe-reference` gives one section for `Recipe` and one for each settings class that hangs on it. `chain-config`
gives a table of what `ChainConfig` adds to `TrainingArguments`, `runner-fields` of what the runner fills in. With the
argument `graft` the first two are about `GraftRecipe` and `GraftConfig`, with `suite` the first is about `Suite`.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from annotated_types import Ge, Gt, Le, Lt
from docutils import nodes
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hf_chain.arguments.option_types import value_type
from hf_chain.methods.chain.recipe import Recipe
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.runs.training_fields import RUNNER_FIELDS
from hf_chain.settings import Settings
from hf_chain.trainer.chain_config import ChainConfig
from hf_chain.trainer.graft_config import GraftConfig
from hf_chain.transfer.settings import Suite

WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null", Any: "anything"}
BOUNDS = {Ge: "≥ {0.ge}", Gt: "> {0.gt}", Le: "≤ {0.le}", Lt: "< {0.lt}"}
HEADER = ("name", "type", "default", "what it does")
TOP = "The recipe itself"
TOPS = {"suite": "The suite itself"}


KINDS = {"recipe": (Recipe, ChainConfig), "graft": (GraftRecipe, GraftConfig), "suite": (Suite, None)}
"""What a directive is about, and what the anchors of its sections begin with."""


class RecipeReference(SphinxDirective):
    """One section a settings class, from the recipe down."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Walk the recipe."""
        sections: list[nodes.Node] = []
        kind = kind_of(self)
        for title, model in walk(KINDS[kind][0]):
            section = nodes.section(ids=[anchor(title, kind)], names=[anchor(title, kind)])
            self.state.document.note_explicit_target(section)
            heading = nodes.title()
            heading += nodes.Text(TOPS.get(kind, TOP)) if title == TOP else nodes.literal(text=title)
            section += heading
            section += paragraph((model.__doc__ or "").splitlines()[0])
            section += table(HEADER, [settings_row(title, kind, *item) for item in model.model_fields.items()])
            sections.append(section)
        return sections


class ConfigTable(SphinxDirective):
    """What `ChainConfig` or `GraftConfig` adds, and the defaults it changes."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """List the fields that the class defines itself."""
        _, config = KINDS[kind_of(self)]
        own, hints = config.__dict__["__annotations__"], get_type_hints(config)
        # The runner has its own fields for what a stage is called and what it trains.
        fields = [
            field
            for field in dataclasses.fields(config)
            if field.name in own and "help" in field.metadata and field.name not in ("parts", "stage")
        ]
        rows = [
            [
                code(f.name),
                [text(words(value_type(hints[f.name])))],
                code(plain(f.default)),
                marked(f.metadata["help"]),
            ]
            for f in fields
        ]
        return [table(HEADER, rows)]


class RunnerFields(SphinxDirective):
    """`TrainingArguments` fields that a recipe must not set."""

    def run(self) -> list[nodes.Node]:
        """List them with what to use instead."""
        return [table(("field", "instead"), [[code(name), marked(hint)] for name, hint in RUNNER_FIELDS.items()])]


def kind_of(directive: SphinxDirective) -> str:
    """The argument of a directive; a chain's recipe by default."""
    return directive.arguments[0] if directive.arguments else "recipe"


def walk(model: type[Settings], path: str = "") -> Iterator[tuple[str, type[Settings]]]:
    """Every settings class below `model`, with the path of the first field that holds it."""
    yield path or TOP, model
    for name, field in model.model_fields.items():
        for inner in settings_in(field.annotation):
            yield from walk(inner, child(path, name, field))


def child(path: str, name: str, field: FieldInfo) -> str:
    """Path of a field; `[]` marks a list, `.<name>` a mapping from names."""
    marks = {list: "[]", dict: ".<name>"}
    step = name + marks.get(get_origin(field.annotation), "")
    return f"{path}.{step}" if path else step


def settings_in(annotation: Any) -> list[type[Settings]]:
    """The settings classes that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [found for part in get_args(annotation) for found in settings_in(part)]


def settings_row(title: str, prefix: str, name: str, field: FieldInfo) -> list[list[nodes.Node]]:
    """Name, type, default and description of one field."""
    kind: list[nodes.Node]
    if settings_in(field.annotation):
        target = child("" if title == TOP else title, name, field)
        before = "list of " if target.endswith("[]") else "names, each with a " if target.endswith(">") else ""
        kind = [text(before), nodes.reference(text="mapping", refid=anchor(target, prefix), internal=True)]
    else:
        limits = [pattern.format(limit) for kind_, pattern in BOUNDS.items() for limit in limits_of(field, kind_)]
        base, optional, _ = words(field.annotation).partition(" or null")
        kind = [text(" ".join([base, *limits]) + optional)]
    return [code(name), kind, default_of(field), marked(field.description or "")]


def limits_of(field: FieldInfo, kind: type) -> Iterable[Any]:
    """The bounds of a kind that a field has."""
    return (limit for limit in field.metadata if isinstance(limit, kind))


def default_of(field: FieldInfo) -> list[nodes.Node]:
    """The default as YAML writes it; settings have the defaults of their own section."""
    if field.is_required():
        return [nodes.strong(text="required")]
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, Settings):
        return [text("")]
    return code(plain(value))


def words(annotation: Any) -> str:
    """A type in the words of YAML: `int | None` is `integer or null`."""
    if annotation in WORDS:
        return WORDS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, str):
        # An enumeration of texts.
        return WORDS[str]
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return either([str(part) for part in parts])
    if origin in (Union, types.UnionType):
        return either(list(dict.fromkeys(words(part) for part in parts)))
    if origin is list:
        return f"list of {words(parts[0])}"
    if origin is tuple:
        return f"[{', '.join(map(words, parts))}]"
    return "mapping" if origin is dict else str(annotation)


def either(choices: list[str]) -> str:
    """Choices as a person lists them: `a, b or c`."""
    return " or ".join([", ".join(choices[:-1]), choices[-1]]) if choices[1:] else choices[0]


def plain(value: Any) -> str:
    """A value as one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("\n").removesuffix("\n...")


def anchor(title: str, prefix: str) -> str:
    """The anchor of a section of the reference."""
    return nodes.make_id(f"{prefix} {title}")


def text(value: str) -> nodes.Node:
    """Plain text."""
    return nodes.Text(value)


def code(value: str) -> list[nodes.Node]:
    """Text as code."""
    return [nodes.literal(text=value)]


def marked(value: str) -> list[nodes.Node]:
    """A description, in which single backticks mark code."""
    parts = value.split("`")
    return [nodes.literal(text=part) if number % 2 else text(part) for number, part in enumerate(parts)]


def paragraph(value: str) -> nodes.paragraph:
    """A description as a paragraph."""
    return nodes.paragraph("", "", *marked(value))


def table(header: Iterable[str], rows: list[list[list[nodes.Node]]]) -> nodes.container:
    """A table with one line a row."""
    titles = [[text(title)] for title in header]
    group = nodes.tgroup(cols=len(titles))
    group += [nodes.colspec(colwidth=1) for _ in titles]
    group += nodes.thead("", table_row(titles))
    group += nodes.tbody("", *map(table_row, rows))
    return nodes.container("", nodes.table("", group, classes=["settings", f"columns-{len(titles)}"]))


def table_row(cells: list[list[nodes.Node]]) -> nodes.row:
    """One line of a table."""
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("recipe-reference", RecipeReference)
    app.add_directive("chain-config", ConfigTable)
    app.add_directive("runner-fields", RunnerFields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
