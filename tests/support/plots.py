"""Reports without their plots, for tests that are not about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the plots out of the reports of runs in this process, of which they take the most time.

    Tests marked `plots` draw them, and so do runs that fixtures of a whole file make or other processes. What plots
    show is tested in `tests/report`.
    """
    if request.node.get_closest_marker("plots") is None:
        monkeypatch.setattr("hf_chain.report.write.draw_plots", _no_plots)


def _no_plots(plots: Any, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return {}
