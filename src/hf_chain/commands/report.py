"""What `hf-chain report` does: tables, plots and page of a run, of either method."""

from __future__ import annotations

from pathlib import Path

from hf_chain.commands.methods import method_of
from hf_chain.report import write_sheet
from hf_chain.runs.ledger import read_family


def write_report(run_dir: str | Path, baseline: str | Path | None = None) -> Path:
    """Writes tables, plots and the page of a run into `<run_dir>/report`.

    A chain's tables are `family.md`, `family.csv` and `family.json`, a graft's `graft.md`, `graft.csv` and
    `graft.json`. Works on a finished run and on one that is still going: what is not known yet is left out. Plots for
    which there is nothing to draw are not written, and those of an earlier report are removed.

    Args:
        run_dir (`str | Path`): Folder of the run.
        baseline (`str | Path`, *optional*): For a chain, folder of a run whose members, of the same names, were
            trained independently; adds the comparison. A graft has its baseline in its own run.

    Returns:
        `Path`: The page, `<run_dir>/report/index.html`.

    Raises:
        HfChainError: when a folder has no ledger, the ledger or another file of the run is damaged, a file cannot be
            written, or a graft is given a baseline.
    """
    run_dir, other = Path(run_dir), Path(baseline) if baseline is not None else None
    return write_sheet(run_dir, lambda: method_of(read_family(run_dir).recipe).sheet(run_dir, other))
