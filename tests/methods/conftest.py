"""What the tests of all methods share."""

from support.plots import fixtures_without_plots, without_plots  # noqa: F401
