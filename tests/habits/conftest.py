"""The local Hub."""

from support.hub_fixtures import hub  # noqa: F401
