"""The snippets of README and of the quick pages run, in order and as written.

Recipes are shortened, and models and data that a reader brings are tiny. `run_snippets.py` runs those of all pages,
and in full; with `--short` they take minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.command_line import Command
from support.hub_server import HubServer
from support.snippets import DEMOS, LEFT_OUT, PAGES, PageRun, Snippet, clone, name_of, snippets
from support.stand_ins import ORGANISATIONS, fill_hub, shorten_recipes, write_stand_ins


def page_cases() -> list[Any]:
    """The pages with snippets; of those that go on from a demo, which are slow, README alone, which makes it."""
    cases = []
    for page in PAGES:
        if found := snippets(page):
            words = "\n".join(snippet.text for snippet in found)
            slow = any(mark in words for mark in ("runs/", "make demo", "accelerate launch", "hf-chain run"))
            if not slow or page == PAGES[0]:
                cases.append(pytest.param(page, id=name_of(page), marks=[pytest.mark.slow] if slow else []))
    return cases


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clone of a reader who has all that the pages name, with short recipes."""
    folder = clone(tmp_path / "hf_chain")
    shorten_recipes(folder)
    write_stand_ins(folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", page_cases())
def test_the_snippets_of_a_page_run_from_top_to_bottom(
    page: Path, reader: Path, hub: HubServer, hf_chain: Command, tmp_path: Path
) -> None:
    hub.orgs = ORGANISATIONS
    fill_hub(hub, tmp_path / "hub")
    run = PageRun(hf_chain=hf_chain)
    for snippet in snippets(page):
        if snippet.left_out is None:
            run.run(snippet)


def test_nothing_is_left_out_that_no_page_shows() -> None:
    found = [snippet for page in PAGES for snippet in snippets(page)]
    reasons = {snippet.left_out for snippet in found}
    assert set(LEFT_OUT.values()) <= reasons
    assert {snippet.page for snippet in found} > {"README.md", "docs/quickstart.md", "docs/graft_quickstart.md"}


def test_the_demos_are_what_the_readme_begins_with() -> None:
    assert tuple(snippet.text.split("#")[0].strip() for snippet in snippets(PAGES[0])[:2]) == DEMOS


def test_a_snippet_that_fails_is_named(hf_chain: Command) -> None:
    run = PageRun(hf_chain=hf_chain)
    with pytest.raises(AssertionError, match="page.md:7 hf-chain plan nowhere.yaml"):
        run.run(Snippet("page.md", 7, "bash", "hf-chain plan nowhere.yaml  # a comment"))
    with pytest.raises(AssertionError, match="page.md:8 false .*ended with 1"):
        run.run(Snippet("page.md", 8, "bash", "false"))
    with pytest.raises(NameError, match="collator"):
        run.run(Snippet("page.md", 9, "python", "print(collator)"))


def test_the_translator_page_holds_out_other_text_than_it_fits_on(reader: Path) -> None:
    (block,) = [s for s in snippets(next(p for p in PAGES if p.stem == "translator")) if "held_out=" in s.text]
    run = PageRun()
    run.run(block)
    fitted, held_out = run.namespace["fitted"], run.namespace["held_out"]
    assert fitted and held_out and set(fitted).isdisjoint(held_out)
