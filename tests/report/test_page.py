"""The page is one file, shows the ledger's numbers and opens without an error."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hf_chain.commands.report import write_report
from hf_chain.files import MANIFEST_NAME, write_json, write_manifest
from hf_chain.methods.chain.report.summary import summarize
from hf_chain.methods.chain.report.tables import comparison_table, cost_table, metrics_table
from support.graft_runs import write_graft_run
from support.plots import without_plots  # noqa: F401
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


def test_the_acceleration_ratio_leads_where_twins_were_measured(chain, independent):
    page = write_report(chain, independent).read_text()
    assert page.index(f"<b>{summarize(chain, independent).acceleration_ratio:.1f}×</b>") < page.index("<b>19.4 %</b>")


def test_a_planned_ratio_comes_last_and_says_that_nothing_was_measured(chain):
    page = write_report(chain).read_text()
    ratio = page.index(f"<b>{summarize(chain).acceleration_ratio:.1f}×</b>")
    assert page.index("<b>19.4 %</b>") < ratio and "was not measured" in page[ratio : ratio + 300]
    assert "cheaper" not in page


@pytest.mark.plots
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


@pytest.mark.plots
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("members", [(), ("tiny",), ("tiny", "small", "base")])
def test_the_page_opens_in_chromium_without_a_console_message(tmp_path, members):
    page = write_report(write_run(tmp_path / "run", members, finished=len(members) == 3))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "<h1>run</h1>" in result.stdout
    assert "CONSOLE" not in result.stderr


@pytest.mark.plots
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_of_a_graft_opens_in_chromium_without_a_console_message(tmp_path):
    page = write_report(write_graft_run(tmp_path / "run"))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "<h1>run</h1>" in result.stdout
    assert "CONSOLE" not in result.stderr


MEASURE = """
<iframe id="page" srcdoc="{page}" style="width: {width}px; height: 2000px; border: 0"></iframe>
<pre id="found"></pre>
<script>
onload = () => {{
  const page = document.getElementById("page").contentDocument, found = [];
  const {{scrollWidth, clientWidth}} = page.documentElement;
  if (scrollWidth > clientWidth + 1) found.push(`the page is ${{scrollWidth}} px wide in ${{clientWidth}}`);
  for (const element of page.querySelectorAll("h1, h2, h3, p, li, dt, dd, th, td, small, figcaption")) {{
    const text = element.textContent.trim(), range = page.createRange();
    range.selectNodeContents(element);
    const lines = new Set([...range.getClientRects()].map(line => Math.round(line.bottom / 4))).size;
    const letters = text.length / Math.max(1, lines);
    if (text.length > 12 && letters < 4) found.push(`${{letters.toFixed(1)}} letters a line: ${{text.slice(0, 60)}}`);
    if (text && element.getBoundingClientRect().width === 0) found.push(`no width: ${{text.slice(0, 60)}}`);
  }}
  document.getElementById("found").textContent = JSON.stringify(found);
}};
</script>
"""


def complaints(page: str, width: int, folder: Path) -> list[str]:
    """What is too narrow, or too wide, on a page in a window of so many pixels; Chromium's own has 500 at least."""
    wrapper = folder / f"{width}.html"
    wrapper.write_text(MEASURE.format(page=html.escape(page, quote=True), width=width))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,2100", "--dump-dom"]
    result = subprocess.run([*command, wrapper.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    return json.loads(html.unescape(result.stdout.split('<pre id="found">')[1].split("</pre>")[0]))


@pytest.mark.plots
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1300, 390])
def test_no_text_is_squeezed(tmp_path: Path, width: int) -> None:
    """Long answers stood one letter a line beside long names of stages."""
    run_dir = write_graft_run(tmp_path / "graft")
    for path in run_dir.glob("0*/answers.json"):
        values = json.loads(path.read_text())
        for answers in values.values():
            for answer in answers:
                answer["answer"] = "A long description of what can be seen in the picture, word for word, and more."
        write_json(path, values)
        if (path.parent / MANIFEST_NAME).exists():
            write_manifest(path.parent)
    for folder in (run_dir, write_run(tmp_path / "family")):
        assert complaints(write_report(folder).read_text(), width, tmp_path) == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_check_of_widths_sees_squeezed_text(tmp_path: Path) -> None:
    page = '<p style="width: 9px; overflow-wrap: anywhere">squeezed to the bone</p><p style="width: 2000px">wide</p>'
    found = complaints(page, 390, tmp_path)
    assert len(found) == 2 and "2008 px wide in 390" in found[0] and "letters a line: squeezed" in found[1]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_console_check_sees_errors(tmp_path):
    """Keeps the test above honest: a page with an error is caught by the same flags."""
    page = tmp_path / "broken.html"
    page.write_text("<script>undefinedFunction()</script>")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert "CONSOLE" in result.stderr
