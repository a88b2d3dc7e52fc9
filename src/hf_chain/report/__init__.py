"""Report of a run: tables, plots and one self-contained HTML page, made from the ledger and the training logs."""

from __future__ import annotations

from hf_chain.report.summary import FamilySummary, MemberSummary, summarize
from hf_chain.report.write import write_report

__all__ = ["FamilySummary", "MemberSummary", "summarize", "write_report"]
