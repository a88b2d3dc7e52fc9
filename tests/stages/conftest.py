"""Fixtures of the stages' tests."""

from __future__ import annotations

from support.command_line import hf_chain  # noqa: F401
