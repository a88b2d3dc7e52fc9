"""Fixtures of the grafting tests."""

from __future__ import annotations

from support.hub_fixtures import hub  # noqa: F401
