"""The rooms of the library stand in one order: none imports a room above it, and no two import each other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import hf_chain

SOURCE = Path(hf_chain.__file__).parent
LONGEST_FILE = 400
"""Lines; a file that passes them is asking to be split."""

ROOMS = (
    "families",
    "cost",
    "growth",
    "losses",
    "data",
    "models",
    "distillation",
    "evaluation",
    "arguments",
    "grafting",
    "tasks",
    "trainer",
    "runs",
    "transfer",
    "hub",
    "report",
    "methods",
    "methods.chain",
    "methods.graft",
    "commands",
    "cli",
)
"""From the ground up. What lies in no folder stands below them all and imports none."""
OPENERS = {"", "__main__"}
"""The package itself, which opens its rooms when a name is used, and what starts the command line."""


def room_of(module: str) -> str:
    """The room of `methods.chain.recipe` is `methods.chain`, that of a file in no folder its own name."""
    method = re.match(r"methods\.(chain|graft)\b", module)
    return method[0] if method else module.partition(".")[0]


def modules() -> dict[str, Path]:
    """Every module of the library by its name without `hf_chain.`."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """What a file imports of the library: at its top, inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("hf_chain.") for name in names if name.startswith("hf_chain."))


def arrows() -> set[tuple[str, str, str]]:
    """Room, room it imports, and the module that does."""
    found = {
        (room_of(module), room_of(name), module)
        for module, path in modules().items()
        if module not in OPENERS
        for name in imported(path)
    }
    return {(room, other, module) for room, other, module in found if room != other}


def test_every_folder_is_a_room() -> None:
    folders = {room_of(module) for module, path in modules().items() if path.parent != SOURCE}
    assert folders <= set(ROOMS)


def test_the_page_on_the_architecture_lists_the_rooms_in_their_order() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = page.split("```")[1]
    listed = [name for name in re.findall(r"^  (\w+)/", block, re.MULTILINE) if (SOURCE / name).is_dir()]
    there = {room_of(module).partition(".")[0] for module, path in modules().items() if path.parent != SOURCE}
    assert listed == [room for room in ROOMS if room in there]


def test_no_room_imports_one_above_it() -> None:
    height = {room: number for number, room in enumerate(ROOMS)}
    up = [arrow for arrow in arrows() if height.get(arrow[0], -1) < height.get(arrow[1], -1)]
    assert not up, f"arrows up: {sorted(up)}"


def test_no_module_imports_itself_through_others() -> None:
    known = modules()
    graph = {
        module: {max((m for m in known if name == m or name.startswith(f"{m}.")), key=len) for name in imported(path)}
        for module, path in known.items()
        if module not in OPENERS
    }
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"a circle: {' -> '.join((*trail[trail.index(module) :], module))}"
        if module in done:
            return
        for other in sorted(graph.get(module, ())):
            walk(other, (*trail, module))
        done.add(module)

    for module in graph:
        walk(module, ())


@pytest.mark.parametrize("module", sorted(modules()))
def test_a_file_tells_one_story(module: str) -> None:
    lines = len(modules()[module].read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{module or '__init__'} has {lines} lines: split it"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("hf_chain.stages.recipe.load_recipe", "hf_chain.methods.chain.recipe"),
        ("hf_chain.report.write_report", "hf_chain.commands.report.write_report"),
        ("hf_chain.hub.push_pending", "hf_chain.commands.push.push_pending"),
    ],
)
def test_a_public_name_that_has_moved_says_where_it_is(old: str, new: str) -> None:
    module, _, name = old.rpartition(".")
    with pytest.raises(ImportError, match=new):
        getattr(import_module(module), name)
    parent, _, new_name = new.rpartition(".")
    assert hasattr(import_module(parent), new_name)
