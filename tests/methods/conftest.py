"""What the tests of all methods share."""

from support.plots import without_plots  # noqa: F401
