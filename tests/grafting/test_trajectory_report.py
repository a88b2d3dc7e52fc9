"""The report says what was measured, what is replaced and what is left."""

from __future__ import annotations

import pytest

from hf_chain.errors import HfChainError
from hf_chain.grafting.ranges import LayerRange
from hf_chain.grafting.trajectory_report import trajectory_report
from support.trajectories import made_trajectory, plateau_and_fall


def rows(report: str) -> list[list[str]]:
    lines = [line for line in report.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_report_of_a_plateau() -> None:
    report = trajectory_report(made_trajectory(plateau_and_fall(8, 4)), [LayerRange(4, 6)])
    assert "# Prediction trajectory of some/target" in report
    assert "on 300 samples with 12,000 predicted tokens, for 1T MACs; 2 samples were too short." in report
    assert "Replaced: layers 4-6 (translator: 4, dropped: 5-6)." in report
    # 500 parameters and 2,000 MACs outside of the layers, 100 and 1,000 in each.
    assert "6 of 8 layers, 1.1K of 1.3K parameters (85%) and 80% of the forward MACs." in report
    assert "meet at layer 4: " in report and "-1.5 after it; a fall begins there." in report
    table = rows(report)
    assert [row[-1] for row in table] == ["kept"] * 4 + ["translator", "dropped", "dropped", "kept"]
    assert table[5] == ["5", "4.500 (3.600 – 5.400)", "9.000 (7.200 – 10.800)", "0.100", "dropped"]


def test_report_without_a_plateau_says_so() -> None:
    report = trajectory_report(made_trajectory([8, 6, 4, 2, 1.6, 1.2, 0.8, 0.4, 0]), [LayerRange(3, 6)])
    assert "no plateau ends in a fall there, so compare other criteria." in report


def test_several_ranges_and_translators() -> None:
    ranges = [LayerRange(8, 10), LayerRange(2, 5)]
    report = trajectory_report(made_trajectory(plateau_and_fall(12, 6), skipped_samples=0), ranges, translators=2)
    assert "layers 2-5 (translator: 2-3, dropped: 4-5), layers 8-10 (translator: 8-9, dropped: 10)." in report
    assert "too short" not in report


def test_a_shallow_target_and_ranges_of_another() -> None:
    assert "segments" not in trajectory_report(made_trajectory([3, 2, 1, 0]), [LayerRange(0, 1)])
    with pytest.raises(HfChainError, match="reaches outside of the model"):
        trajectory_report(made_trajectory([3, 2, 1, 0]), [LayerRange(2, 5)])
