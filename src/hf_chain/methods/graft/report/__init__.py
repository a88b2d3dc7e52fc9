"""The report of a graft: its numbers, and how tables, plots and page show them."""
