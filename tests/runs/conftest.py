"""What the tests of runs share."""

from support.plots import fixtures_without_plots, without_plots  # noqa: F401
