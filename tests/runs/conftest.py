"""What the tests of runs share."""

from support.plots import without_plots  # noqa: F401
