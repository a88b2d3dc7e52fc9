"""The page is one file, shows the ledger's numbers and opens without an error."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from hf_chain.report import summarize, write_report
from hf_chain.report.tables import comparison_table, cost_table, metrics_table
from support.graft_runs import write_graft_run
from support.report_runs import write_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
]


class Cells(HTMLParser):
    """Collects the rows of the tables and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][-1] += data


def test_tables_of_the_page_equal_those_of_the_ledger(chain, independent):
    rows = Cells(write_report(chain, independent).read_text()).rows
    family = summarize(chain, independent)
    for header, body in (cost_table(family), metrics_table(family, "validation"), comparison_table(family)):
        for row in (header, *body):
            assert row in rows


def test_headline_is_the_acceleration_ratio(chain):
    page = write_report(chain).read_text()
    assert f"<b>{summarize(chain).acceleration_ratio:.1f}×</b>" in page
    assert "<b>19.4 %</b>" in page


def test_nothing_is_loaded_from_elsewhere(chain, independent):
    page = write_report(chain, independent).read_text()
    for tag, attributes in Cells(page).tags:
        assert tag not in ("script", "iframe", "object", "embed", "base")
        for name in ("src", "srcset", "href", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"@import|url\(", page)


def test_names_from_the_recipe_cannot_break_the_page(tmp_path):
    page = write_report(write_run(tmp_path / "<b>bold & brave")).read_text()
    assert "<b>bold" not in page
    assert "&lt;b&gt;bold &amp; brave" in page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("members", [(), ("tiny",), ("tiny", "small", "base")])
def test_the_page_opens_in_chromium_without_a_console_message(tmp_path, members):
    page = write_report(write_run(tmp_path / "run", members, finished=len(members) == 3))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "<h1>run</h1>" in result.stdout
    assert "CONSOLE" not in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_of_a_graft_opens_in_chromium_without_a_console_message(tmp_path):
    page = write_report(write_graft_run(tmp_path / "run"))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "<h1>run</h1>" in result.stdout
    assert "CONSOLE" not in result.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_console_check_sees_errors(tmp_path):
    """Keeps the test above honest: a page with an error is caught by the same flags."""
    page = tmp_path / "broken.html"
    page.write_text("<script>undefinedFunction()</script>")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" in result.stderr
