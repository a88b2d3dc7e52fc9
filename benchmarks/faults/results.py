"""What the instruments found: one JSON line a case, and the page that shows them."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processes import ROOT

PAGE = ROOT / "docs" / "benchmarks" / "reliability.md"
GOOD = ("ended", "identical", "rebuilt", "refused", "harmless", "dropped", "warned", "right")
"""Verdicts that ought to be; all others are faults."""


class Results:
    """Cases that were tried, in a file that grows while they are; the same command goes on after a stop.

    Args:
        path (`Path`): the file, one JSON line a case.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def rows(self) -> list[dict[str, Any]]:
        """What is known, the last word on each case."""
        if not self.path.exists():
            return []
        found = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return list({row["case"]: row for row in found}.values())

    def add(self, case: str, **found: Any) -> dict[str, Any]:
        """Notes a case, and the commit it was tried at."""
        row = {"case": case, "commit": commit(), **found}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return row

    def left(
        self, cases: Iterator[Any] | list[Any], name: Any = str, only: str = "", again: bool = False
    ) -> list[Any]:
        """Those of `cases` that are asked for and not known yet; faults are tried again."""
        known = set() if again else {row["case"] for row in self.rows() if row["verdict"] in GOOD}
        return [case for case in cases if name(case) not in known and re.search(only, name(case))]


def commit() -> str:
    """The commit of the code, with a plus where the product or the instruments differ from it."""
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    changed = subprocess.run(
        [*git, "diff", "--quiet", "HEAD", "--", "src", "tests/support", "benchmarks"], check=False
    )
    return name.stdout.strip() + "+" * changed.returncode


def table(rows: list[dict[str, Any]], left: str, across: str, title: str = "") -> str:
    """Counts of rows by two of their fields, as Markdown."""
    from hf_chain.cost.table import markdown_table

    columns = sorted({row[across] for row in rows}, key=lambda name: (name not in GOOD, name))
    body = []
    for group in [*dict.fromkeys(row[left] for row in rows), None]:
        counts = Counter(row[across] for row in rows if group in (None, row[left]))
        cells = [str(counts[column] or "–") for column in columns]
        body.append([str(group) if group is not None else "all", *cells, str(counts.total())])
    return markdown_table([title or left, *(_shown(column) for column in columns), "all"], body)


def _shown(verdict: str) -> str:
    return verdict if verdict in GOOD or not verdict.isalpha() or verdict.isupper() else f"**{verdict}**"


def write_page(folder: Path) -> None:
    """Writes docs/benchmarks/reliability.{md,json} from what the three instruments have found in `folder`."""
    from families import machine_line
    from hf_chain.files import write_json, write_text
    from hf_chain.runs.environment import describe_environment

    found = {name: Results(folder / f"{name}.jsonl").rows() for name in ("kills", "damage", "inputs")}
    environment = describe_environment()
    rows = [row for rows in found.values() for row in rows]
    commits = sorted({row["commit"] for row in rows})
    values = {"environment": environment, "commits": commits, **{name: _compact(rows) for name, rows in found.items()}}
    write_json(PAGE.with_suffix(".json"), values)
    faults = [row for row in rows if row["verdict"] not in GOOD]
    listed = [f"- {row['case']}: **{row['verdict']}**, {_told(row)}" for row in faults] or ["None."]
    kills = [row for row in found["kills"] if "signal" in row]
    parts = {
        "kills": table(kills, "phase", "signal") if kills else "",
        "statuses": table([row | {"end": _ended(row)} for row in kills], "end", "signal", "ends with")
        if kills
        else "",
        "compared": len(found["kills"]) - len(kills),
        "identical": sum(row["verdict"] == "identical" for row in found["kills"]),
        "damage": table(found["damage"], "state", "verdict") if found["damage"] else "",
        "inputs": table(found["inputs"], "group", "verdict") if found["inputs"] else "",
        "faults": "\n".join(listed),
        "commits": ", ".join(f"`{one}`" for one in commits),
        "machine": machine_line(environment),
    }
    write_text(PAGE, (Path(__file__).with_name("reliability.md")).read_text(encoding="utf-8").format(**parts))


def _ended(row: dict[str, Any]) -> str:
    launched = "1 process" if row["processes"] == 1 else f"torchrun, {row['processes']} processes"
    status = row["status"]
    return f"{launched}: {'still there' if status is None else f'signal {-status}' if status < 0 else status}"


def _told(row: dict[str, Any]) -> str:
    text = " ".join(filter(None, [row.get("detail", ""), row.get("where", ""), row.get("said", "")]))
    return re.sub(r"\S*/case-\w+/", "", text)[:240].replace("|", "/")


def _compact(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """By case what was found, in a list, as a thousand mappings would say the same words a thousand times."""
    kept = [name for name in ("verdict", "commit", "signal", "where", "status") if any(name in row for row in rows)]
    return {"fields": ["case", *kept], "cases": [[row["case"], *(row.get(name) for name in kept)] for row in rows]}
