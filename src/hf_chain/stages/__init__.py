"""Stages: the recipe, the runner that walks its members, the ledger that remembers."""
