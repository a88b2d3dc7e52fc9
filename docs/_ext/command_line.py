"""Directive that writes the arguments and options of every `hf-chain` command from the command line itself."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from recipe_reference import code, marked, table, text
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from typer.main import get_command

from hf_chain.cli import app as command_line


class CommandLine(SphinxDirective):
    """One section a command."""

    def run(self) -> list[nodes.Node]:
        """Walk the commands."""
        sections: list[nodes.Node] = []
        commands: Any = get_command(command_line)
        for name, command in commands.commands.items():
            section = nodes.section(ids=[f"hf-chain-{name}"], names=[f"hf-chain-{name}"])
            section += nodes.title("", "", nodes.literal(text=f"hf-chain {name}"))
            section += nodes.paragraph("", command.help)
            section += table(("argument", "default", "what it does"), [parameter_row(p) for p in command.params])
            sections.append(section)
        return sections


def parameter_row(parameter: Any) -> list[list[nodes.Node]]:
    """Name, default and help of one parameter; positional ones are in capitals."""
    positional = parameter.param_type_name == "argument"
    name = parameter.name.upper() if positional else ", ".join(parameter.opts)
    shown = parameter.default if isinstance(parameter.default, (str, int)) and parameter.default is not False else None
    default = [nodes.strong(text="required")] if parameter.required else code(str(shown)) if shown is not None else []
    return [code(name), default or [text("")], marked(parameter.help or "")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
