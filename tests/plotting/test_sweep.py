"""The picture of a sweep: the axes that it shows, medians over the others, crosses for failed points."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shaped_transformer.analysis import sweeps
from shaped_transformer.plotting import sweep as picture

BASE: dict[str, Any] = {"depth": 3, "width": 16, "samples": 32, "tokens": 3}


def sweep(tmp_path: Path, **spec: Any) -> Any:
    """Return the dataset of a finished sweep."""
    sweeps.run(sweeps.from_dict({"base": BASE} | spec), tmp_path)
    return sweeps.load(tmp_path)


@pytest.mark.parametrize(
    ("grid", "axes", "others"),
    [
        ({"gamma": [0.2, 0.4]}, ["gamma"], []),
        ({"gamma": [0.2], "seed": [0, 1]}, ["gamma"], ["seed"]),
        ({"seed": [0, 1]}, ["seed"], []),
        ({"seed": [0, 1, 2], "gamma": [0.2, 0.4], "mask": ["full", "causal"]}, ["gamma", "mask"], ["seed"]),
        ({"tau0": [1.0, 2.0], "gamma": [0.2, 0.3, 0.4], "heads": [1, 2, 4]}, ["gamma", "heads"], ["tau0"]),
    ],
)
def test_the_longest_axes_are_shown_and_seeds_last(
    grid: dict[str, Any], axes: list[str], others: list[str], tmp_path: Path
) -> None:
    data = sweep(tmp_path, grid=grid)
    assert picture.choose_axes(data) == (axes, others)
    figure = picture.plot(data)
    assert all(name in figure.get_suptitle() for name in others)
    panels = [panel for panel in figure.axes if panel.get_xlabel()]
    assert [panel.get_title(loc="left") for panel in panels] == list(picture.TITLES.values())
    assert {panel.get_xlabel() for panel in panels} == {axes[-1]}
    if len(axes) == 2:
        assert {panel.get_ylabel() for panel in panels} == {axes[0]}


def test_a_line_is_the_median_in_the_order_of_the_axis(tmp_path: Path) -> None:
    data = sweep(tmp_path, grid={"gamma": [0.4, 0.2]}, keep=["effective_rank"])
    line = picture.plot(data).axes[0].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), [0.2, 0.4])
    np.testing.assert_array_equal(line.get_ydata(), data["effective_rank"].sel(quantile=0.5).sortby("gamma"))


def test_a_map_shows_the_medians_over_seeds(tmp_path: Path) -> None:
    grid = {"gamma": [0.4, 0.2], "tau0": [1.0, 2.0], "seed": [0, 1, 2]}
    data = sweep(tmp_path, grid=grid, keep=["effective_rank"])
    image = picture.plot(data).axes[0].images[0].get_array()
    np.testing.assert_array_equal(image, data["effective_rank"].sel(quantile=0.5).median("seed"))


@pytest.mark.parametrize(
    "spec", [{"list": [{"gamma": 0.3}, {"gamma": 1.7}]}, {"grid": {"gamma": [0.3, 1.7], "tau0": [1.0, 2.0]}}]
)
def test_failed_points_are_crossed(spec: dict[str, Any], tmp_path: Path) -> None:
    figure = picture.plot(sweep(tmp_path, **spec))
    assert "×" in [text.get_text() for text in figure.axes[0].texts]
