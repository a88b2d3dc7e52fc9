"""A local Hub for the snippets that load or push."""

from support.hub_fixtures import hub  # noqa: F401
