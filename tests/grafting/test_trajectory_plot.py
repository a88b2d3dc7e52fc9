"""The plot shows the curves that were measured and marks what becomes of the layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_chain.errors import HfChainError
from hf_chain.grafting.ranges import LayerRange
from hf_chain.grafting.trajectory_report import plot_trajectory, trajectory_figure
from hf_chain.theme import DARK
from support.trajectories import made_trajectory, plateau_and_fall

TRAJECTORY = made_trajectory(plateau_and_fall(28, 16))
RANGE = (LayerRange(16, 26),)


def bands(axis) -> dict[str, tuple[float, float]]:
    return {patch.get_label(): (patch.get_x(), patch.get_x() + patch.get_width()) for patch in axis.patches}


def test_curves_and_marks_stand_where_they_belong() -> None:
    figure = trajectory_figure(TRAJECTORY, RANGE)
    distances, influence = figure.axes
    lines = {line.get_label(): line.get_xydata() for line in distances.lines}
    median = lines["prediction distance, median and quartiles"]
    np.testing.assert_allclose(median, [*enumerate(TRAJECTORY.prediction_distance)][1:])
    divergence = lines["vocabulary KL, median and quartiles"]
    np.testing.assert_allclose(divergence[:, 1], TRAJECTORY.vocabulary_kl[1:])
    assert lines["two segments, break at 16"][:, 0].tolist() == [*range(1, 28)]
    (influences,) = influence.lines
    assert influences.get_xdata().tolist() == [layer + 0.5 for layer in range(28)]
    for axis in figure.axes:
        assert bands(axis) == {"translator": (16, 17), "dropped": (17, 27), "kept at the end": (27, 28)}


def test_several_ranges_and_translators_are_marked() -> None:
    distances, _ = trajectory_figure(TRAJECTORY, [LayerRange(5, 9), LayerRange(14, 24)], translators=2).axes
    marked = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in distances.patches)
    assert marked == [(5, 7), (7, 10), (14, 16), (16, 25), (25, 28)]


def test_a_shallow_target_is_drawn_without_a_fit() -> None:
    distances, _ = trajectory_figure(made_trajectory([3, 2, 1, 0]), [LayerRange(0, 1)]).axes
    assert len(distances.lines) == 2


def test_a_picture_has_ink_and_the_colours_of_its_theme(tmp_path: Path) -> None:
    with Image.open(plot_trajectory(TRAJECTORY, tmp_path / "dark.png", RANGE, theme=DARK)) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 700
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert tuple(pixels[0, 0]) == tuple(int(DARK.background[place : place + 2], 16) for place in (1, 3, 5))


def test_the_same_trajectory_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (plot_trajectory(TRAJECTORY, str(tmp_path / name), RANGE) for name in ("one.svg", "two.svg"))
    assert one.read_bytes() == two.read_bytes()


def test_a_file_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none" / "plot.png", "there is no folder .*none for the plot"),
        (tmp_path / "plot.jpgg", "plot.jpgg names no known format: end it in .*png"),
    ):
        with pytest.raises(HfChainError, match=message):
            plot_trajectory(TRAJECTORY, path, RANGE)


def test_ranges_of_another_target_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HfChainError, match="reaches outside of the model"):
        plot_trajectory(TRAJECTORY, tmp_path / "plot.png", [LayerRange(20, 30)])
