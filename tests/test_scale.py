"""The page of costs at scale keeps the rows of other scripts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "scale" / "results.py"


def test_a_row_replaces_its_own_only(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("scale_results", RESULTS)
    assert spec is not None and spec.loader is not None
    results: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    for number, ratio in ((20, 0.5), (3, 2.0), (20, 12_345.6)):
        curves = {"ours": {1_000: ratio, 10: 1.0}, "control": {1_000: 7.0}}
        results.add_row(
            number, "cost", "s", "rows", curves, ratio, "≤ 1 ×", "python x.py", note=f"why {ratio}", folder=tmp_path
        )
    rows = json.loads((tmp_path / "scale.json").read_text(encoding="utf-8"))
    assert [(number, row["ratio"]) for number, row in rows.items()] == [("3", 2.0), ("20", 12_345.6)]
    page = (tmp_path / "scale.md").read_text(encoding="utf-8")
    assert "| 20. cost |  | 12,346 | ≤ 1 × |" in page and "0.5" not in page
    assert "| rows | ours | control |\n|---:|---:|---:|\n| 10 | 1 |  |\n| 1,000 | 12,346 | 7 |" in page
    assert page.count("Hardware: ") == 1
    assert "12,346 | 7 |\n\nwhy 12345.6\n" in page
