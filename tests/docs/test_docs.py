"""What the documentation shows is there: commands and settings exist, links lead somewhere, it builds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from hf_chain.cli import app
from hf_chain.commands.run import RunArguments
from hf_chain.cost.table import PUBLISHED, comparison_table
from hf_chain.methods.chain.recipe import Recipe, recipe_class
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.runs.recipe_file import parse_values, validated
from hf_chain.transfer.settings import Suite

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("**/*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
RECIPES = ROOT / "examples" / "recipes"


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The `hf-chain` commands of a page, in words."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("hf-chain ")]


def name(page: Path) -> str:
    """A page as pytest shows it."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name)
def test_every_command_and_option_that_a_page_shows_exists(page: Path) -> None:
    known: Any = get_command(app)
    for words in commands(page):
        command = known.commands[words[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options
        recipes = [word for word in words if word.startswith("examples/")]
        overrides = [value for flag, value in zip(words, words[1:], strict=False) if flag == "--set"]
        for recipe in recipes:
            RunArguments(str(ROOT / recipe), overrides).recipe()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=name)
def test_the_settings_that_a_page_shows_are_accepted(page: Path) -> None:
    chain, graft = (
        yaml.safe_load((RECIPES / name).read_text(encoding="utf-8")) for name in ("scenes.yaml", "graft_scenes.yaml")
    )
    shapes = {member["name"]: member for member in chain["members"]}
    for block in blocks(page, "yaml"):
        shown = yaml.safe_load(block)
        if "datasets" in shown:
            validated(Suite, shown, page.name)
            continue
        if "members" in shown and "task" not in shown:
            # A member that is shown without towers is one of the demo.
            shown["members"] = [m if "vision" in m else shapes.get(m["name"], {}) | m for m in shown["members"]]
        kind: Any = recipe_class(shown)
        if shown.keys() & {"target", "encoder", "surrogate", "stages", "baseline"}:
            kind = GraftRecipe
        # A recipe of another task has nothing of one of CLIPs.
        whole = shown if kind not in (Recipe, GraftRecipe) else (graft if kind is GraftRecipe else chain) | shown
        # PyYAML reads `1e-3` as text and would quote it; a recipe is read as YAML 1.2.
        text = re.sub(r"'([\d.]+e-?\d+)'", r"\1", yaml.safe_dump(whole))
        validated(kind, parse_values(text), page.name)


def chain_samples() -> list[Any]:
    """Every recipe of a whole chain that pages and examples show."""
    shown = [(name(page), yaml_text) for page in PAGES for yaml_text in blocks(page, "yaml")]
    shown += [(path.name, path.read_text(encoding="utf-8")) for path in sorted(RECIPES.glob("*.yaml"))]
    whole = [(origin, parse_values(text)) for origin, text in shown if "\nmembers:" in text and "\nmodel:" in text]
    # What grows from a trunk goes on at the rate that is running.
    whole = [(origin, values) for origin, values in whole if "trunk_decay" not in values["training"]]
    return [pytest.param(values, id=origin) for origin, values in whole if len(values["members"]) > 1]


@pytest.mark.parametrize("values", chain_samples())
def test_grown_members_train_at_the_rate_that_the_benchmarks_recommend(values: dict[str, Any]) -> None:
    members, training = values["members"], values["training"]
    rates = [member.get("training", {}).get("learning_rate", training.get("learning_rate")) for member in members]
    assert max(rates[1:]) <= rates[0] / 4


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_links_to_or_names_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    named = re.findall(r"`((?:src|docs|examples|tests|benchmarks|constraints)/[\w./-]+\.\w+)`", text)
    assert not missing + [path for path in named if not (ROOT / path).exists()]


def test_the_published_example_is_what_the_tool_says() -> None:
    assert f"```text\n{comparison_table(PUBLISHED)}\n```" in (DOCS / "cost.md").read_text(encoding="utf-8")


def test_the_paper_index_names_files_that_exist() -> None:
    rows = re.findall(r"^\|[^|]*\|[^|]*\|([^|]*)\|$", (DOCS / "papers.md").read_text(encoding="utf-8"), re.MULTILINE)
    files = [path for row in rows for path in re.findall(r"`([\w/]+\.py)`", row)]
    assert files
    assert [path for path in files if not (ROOT / "src" / "hf_chain" / path).exists()] == []


@pytest.mark.slow
def test_the_strict_build_passes_and_documents_every_setting(tmp_path: Path) -> None:
    for module in ("sphinx", "furo", "myst_parser", "sphinx_copybutton"):
        pytest.importorskip(module)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    reference = (tmp_path / "recipes.html").read_text(encoding="utf-8")
    words = set(re.findall(r'<span class="pre">([^<]+)</span>', reference))
    assert set(Recipe.model_fields) <= words
    assert {"feature_loss_until", "compositional", "hidden_size", "num_train_epochs"} <= words
