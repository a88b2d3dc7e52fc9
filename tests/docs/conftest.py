"""A local Hub for the snippets that load or push, and nothing that they register stays in the process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hf_chain.families import FAMILIES
from hf_chain.tasks import TASKS
from support.hub_fixtures import hub  # noqa: F401


@pytest.fixture(autouse=True)
def _nothing_stays_registered() -> Iterator[None]:
    before: list[tuple[dict, dict]] = [(FAMILIES, dict(FAMILIES)), (TASKS, dict(TASKS))]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)
