"""What the documentation shows works: code runs, commands and settings exist, links lead somewhere, it builds."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import CLIPModel
from typer.main import get_command

from hf_chain.cli import app
from hf_chain.cost.comparison import PUBLISHED, comparison_table
from hf_chain.data import build_processor, train_tokenizer
from hf_chain.stages.graft.recipe import GraftRecipe
from hf_chain.stages.launch import RunArguments
from hf_chain.stages.recipe import Recipe, load_recipe
from hf_chain.stages.recipe_file import parse_values, validated

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


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the untrained last member of the scenes recipe, where a run would leave it."""
    recipe = load_recipe(RECIPES / "scenes.yaml")
    captions = ["a red circle", "a blue square on a plain white background"]
    tokenizer = train_tokenizer(captions, vocab_size=600, max_length=recipe.model.max_text_tokens)
    marks = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    member = recipe.members[-1]
    config = recipe.model.clip_config(member.vision, member.text, None, len(tokenizer), *marks)
    folder = tmp_path / "runs" / "scenes" / recipe.folder_name(len(recipe.members) - 1)
    CLIPModel(config).save_pretrained(folder)
    build_processor(tokenizer, recipe.model.image_size).save_pretrained(folder)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets_cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [
        *("quickstart", "growth", "training", "cost", "evaluation"),
        *("chat_data", "trajectory", "surrogate", "translator", "grafted_vlm"),
        pytest.param("graft_training", marks=pytest.mark.slow),
    ],
)
def test_the_python_code_of_a_page_runs_from_top_to_bottom(page: str, run_folder: Path) -> None:
    found = blocks(DOCS / f"{page}.md", "python")
    assert found
    namespace: dict[str, Any] = {"__name__": page}
    for block in found:
        exec(compile(block, f"{page}.md", "exec"), namespace)


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
        if "members" in shown:
            shown["members"] = [shapes.get(member["name"], {}) | member for member in shown["members"]]
        kind = GraftRecipe if shown.keys() & {"target", "encoder", "surrogate", "stages", "baseline"} else Recipe
        whole = (graft if kind is GraftRecipe else chain) | shown
        # PyYAML reads `1e-3` as text and would quote it; a recipe is read as YAML 1.2.
        text = re.sub(r"'([\d.]+e-?\d+)'", r"\1", yaml.safe_dump(whole))
        validated(kind, parse_values(text), page.name)


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
