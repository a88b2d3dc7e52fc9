"""The report of a chain: its numbers, and how tables, plots and page show them."""
