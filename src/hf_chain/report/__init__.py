"""Report of a run: one self-contained HTML page, tables and plots, of what a method hands it."""

from __future__ import annotations

from hf_chain.lazy import lazy_names
from hf_chain.report.sheet import Plot, Sheet, ShownTable, Table
from hf_chain.report.write import try_report, write_sheet

__all__ = ["Plot", "Sheet", "ShownTable", "Table", "try_report", "write_sheet"]

_MOVED = {
    "summarize": "hf_chain.methods.chain.report.summary.summarize",
    "write_report": "hf_chain.commands.report.write_report",
}

__getattr__ = lazy_names(__name__, {}, _MOVED)
