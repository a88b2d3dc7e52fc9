"""Reports without their plots, for tests that are not about them.

Plots take most of the time of a tiny run. Tests marked `plots` draw them, and what they show is tested in
`tests/report`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hf_chain.report.plots import draw_plots
from support.fork_server import no_plots


@pytest.fixture(autouse=True)
def without_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the plots out of the reports of runs in this process, but for tests marked `plots`."""
    marked = request.node.get_closest_marker("plots") is not None
    monkeypatch.setattr("hf_chain.report.write.draw_plots", draw_plots if marked else no_plots)


@pytest.fixture(autouse=True, scope="module")
def fixtures_without_plots() -> Iterator[None]:
    """Leaves them out of the runs that fixtures of a whole file make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_chain.report.write.draw_plots", no_plots)
        yield
